#include "attn/layer/layer_variant.hpp"

#include <algorithm>

#include "attn/core/time.hpp"
#include "attn/exec/arena.hpp"
#include "attn/kernels/dense/activations.hpp"
#include "attn/kernels/dense/onednn.hpp"
#include "attn/kernels/dense/rows.hpp"
#include "attn/layer/layer.hpp"

namespace attn {

namespace {

constexpr index_t mlp_widths = 2;
constexpr float norm_eps = 1e-5f;  // that of layer_norm in algebra
constexpr std::string_view own = "layer.", mixers = "mixer.";

LayerShape shape_of(const Problem& p) {
  const index_t width = p.heads * p.head_dim;
  return {.width = width, .heads = p.heads, .mlp = mlp_widths * width, .positions = Positions::none, .causal = p.causal};
}

// layer_parameters() calls the mixer's parameters "mixer.E" and its own "Wq"; here they are "E" and "layer.Wq", so that the mixer's
// plan finds its own in the set that the layer is handed.
std::string name_here(const std::string& name) {
  return name.rfind(mixers, 0) == 0 ? name.substr(mixers.size()) : std::string(own) + name;
}
std::string name_in_layer(const std::string& name) {
  return name.rfind(own, 0) == 0 ? name.substr(own.size()) : std::string(mixers) + name;
}

// Tokens that a task takes through norms and products: W is packed once for so many, and they stay in L2 up to a width of 512.
// Fewer where that leaves threads without a task.
index_t block_rows(const Problem& p, int threads) {
  constexpr index_t most = 256, least = 32;
  const index_t each = p.batch * p.q_len / (index_t{2} * threads);
  return std::min(p.q_len, std::clamp(each / least * least, least, most));
}

// Two passes over blocks of tokens, with the mixer between them: norm and projections before, Wo and the MLP after.
class LayerPlan final : public Plan {
 public:
  LayerPlan(const Variant& mixer, const Problem& p, WorkspacePlan& workspace, std::shared_ptr<LayerClock> clock)
      : p_(p),
        width_(p.heads * p.head_dim),
        hidden_(shape_of(p).mlp),
        projects_q_(reads_queries(mixer)),
        projects_v_(reads_values(mixer)),
        block_(block_rows(p, workspace.threads())),
        mixer_(mixer.plan(p, workspace)),
        clock_(std::move(clock)) {
    const index_t tokens = p.batch * p.q_len * width_;
    q_ = workspace.shared<float>(tokens);
    k_ = workspace.shared<float>(projects_q_ ? tokens : 0);
    v_ = workspace.shared<float>(projects_v_ ? tokens : 0);
    mixed_ = workspace.shared<float>(tokens);
    residual_ = workspace.per_worker<float>(block_ * width_);
    normed_ = workspace.per_worker<float>(block_ * width_);
    inner_ = workspace.per_worker<float>(block_ * hidden_);
    kernels::prepare_sgemm();
  }

  void run(const Arrays& arrays, const ParameterSet<float>& parameters, Workspace& workspace) const override {
    const double begin = monotonic_s();
    const View<const float, 4> x = arrays.x().f32();
    each_block([&](const Block& block) { project(block, x, parameters, workspace); });
    const double from = monotonic_s();
    const auto heads = [&](const Booking<float>& tokens) {
      return View<float, 4>(workspace.shared(tokens).data(), {p_.batch, p_.heads, p_.q_len, p_.head_dim},
                            {p_.q_len * width_, p_.head_dim, width_, 1});
    };
    const auto q = heads(q_);
    mixer_->run({.q = q, .k = projects_q_ ? heads(k_) : q, .v = projects_v_ ? heads(v_) : q, .out = heads(mixed_)}, parameters,
                workspace);
    const double to = monotonic_s();
    each_block([&](const Block& block) { finish(block, x, parameters, arrays.out.f32_out(), workspace); });
    clock_->mixer_s += to - from;
    clock_->layer_s += monotonic_s() - begin;
  }

  void backward(const Arrays&, const ParameterSet<float>&, const Gradients&, Workspace&) const override {
    ATTN_ASSERT(false && "supports_backward() refuses");
  }

 private:
  struct Block {
    index_t batch, first, rows;
    int worker;
  };

  template <class F>
  void each_block(F f) const {
    const index_t blocks = (p_.q_len + block_ - 1) / block_;
    parallel_tasks(p_.batch * blocks, [&](index_t task, int worker) {
      const index_t first = task % blocks * block_;
      f(Block{task / blocks, first, std::min(block_, p_.q_len - first), worker});
    });
  }

  void project(const Block& block, const View<const float, 4>& x, const ParameterSet<float>& parameters,
               const Workspace& workspace) const {
    float* const tokens = workspace.of(block.worker, residual_).data();
    gather(block, x, tokens);
    // What reads no queries takes the normed tokens themselves.
    float* const y = projects_q_ ? workspace.of(block.worker, normed_).data() : rows_of(q_, block, workspace);
    norm(block.rows, tokens, parameters, "layer.norm.gain", "layer.norm.bias", y);
    if (projects_q_) {
      multiply(block.rows, y, parameters["layer.Wq"], 0, rows_of(q_, block, workspace));
      multiply(block.rows, y, parameters["layer.Wk"], 0, rows_of(k_, block, workspace));
    }
    if (projects_v_) multiply(block.rows, y, parameters["layer.Wv"], 0, rows_of(v_, block, workspace));
  }

  void finish(const Block& block, const View<const float, 4>& x, const ParameterSet<float>& parameters, const View<float, 4>& out,
              const Workspace& workspace) const {
    float* const sum = workspace.of(block.worker, residual_).data();
    float* const y = workspace.of(block.worker, normed_).data();
    float* const inner = workspace.of(block.worker, inner_).data();
    gather(block, x, sum);
    multiply(block.rows, rows_of(mixed_, block, workspace), parameters["layer.Wo"], 1, sum);
    norm(block.rows, sum, parameters, "layer.mlp_norm.gain", "layer.mlp_norm.bias", y);
    multiply(block.rows, y, parameters["layer.W1"], 0, inner);
    kernels::add(block.rows, hidden_, {parameters["layer.b1"].data(), 0}, {inner, hidden_});
    kernels::relu_plus(block.rows, hidden_, {inner, hidden_}, 0, {inner, hidden_});
    multiply(block.rows, inner, parameters["layer.W2"], 1, sum);
    kernels::add(block.rows, width_, {parameters["layer.b2"].data(), 0}, {sum, width_});
    for (index_t h = 0; h < p_.heads; ++h) {
      const auto to = out[block.batch][h];
      kernels::copy(block.rows, p_.head_dim, {sum + h * p_.head_dim, width_}, {to.row(block.first), to.stride(0)});
    }
  }

  void gather(const Block& block, const View<const float, 4>& x, float* to) const {
    for (index_t h = 0; h < p_.heads; ++h) {
      const auto from = x[block.batch][h];
      kernels::copy(block.rows, p_.head_dim, {from.row(block.first), from.stride(0)}, {to + h * p_.head_dim, width_});
    }
  }

  void norm(index_t rows, const float* from, const ParameterSet<float>& parameters, std::string_view gain, std::string_view bias,
            float* to) const {
    kernels::layer_norm(rows, width_, {from, width_}, norm_eps, {to, width_});
    kernels::multiply(rows, width_, {to, width_}, {parameters[gain].data(), 0}, {to, width_});
    kernels::add(rows, width_, {parameters[bias].data(), 0}, {to, width_});
  }

  // to = rows W + beta to
  static void multiply(index_t rows, const float* from, const Tensor<float>& w, float beta, float* to) {
    const index_t k = w.extent(0), n = w.extent(1);
    kernels::sgemm(kernels::Transposed::no, kernels::Transposed::no, rows, n, k, 1, from, k, w.data(), n, beta, to, n);
  }

  float* rows_of(const Booking<float>& tokens, const Block& block, const Workspace& workspace) const {
    return workspace.shared(tokens).data() + (block.batch * p_.q_len + block.first) * width_;
  }

  Problem p_;
  index_t width_, hidden_;
  bool projects_q_, projects_v_;  // projects_q_: and keys
  index_t block_;
  std::unique_ptr<Plan> mixer_;
  std::shared_ptr<LayerClock> clock_;
  Booking<float> q_, k_, v_, mixed_;          // [B*N, width]
  Booking<float> residual_, normed_, inner_;  // of a worker's block
};

class LayerVariant final : public Variant {
 public:
  LayerVariant(std::unique_ptr<Variant> mixer, std::shared_ptr<LayerClock> clock)
      : Variant(name_around(*mixer), mixer->short_name() + " in a layer"),
        mixer_(std::move(mixer)),
        clock_(std::move(clock)),
        info_(mixer_->info()) {
    info_.reads = Reads::x;
    info_.exactness = Exactness::different;
    info_.cross = info_.grouped_heads = info_.heads_independent = info_.row_wise = false;
  }

  const VariantInfo& info() const override { return info_; }

  Parameters parameters(const Problem& p) const override {
    Parameters all = layer_parameters(shape_of(p), *mixer_, p.q_len);
    for (ParameterSpec& spec : all) spec.name = name_here(spec.name);
    return all;
  }

  Status supports_backward(const Problem&) const override { return refuse("has no backward pass of its own"); }
  std::vector<InputSpec> inputs(const Problem&) const override { return {}; }
  StateSpec state(const Problem& p) const override { return mixer_->state(p); }
  bool steps() const override { return false; }
  bool merges() const override { return false; }

  std::unique_ptr<Plan> plan(const Problem& p, WorkspacePlan& workspace) const override {
    return std::make_unique<LayerPlan>(*mixer_, p, workspace, clock_);
  }

  Tensor<double> definition(const Problem& p, const Values<double>& in, const ParameterSet<double>& set) const override {
    return define(p, in, set);
  }
  Tensor<float> definition(const Problem& p, const Values<float>& in, const ParameterSet<float>& set) const override {
    return define(p, in, set);
  }
  std::span<const DType> dtypes() const override { return floats_only; }
  bool reads_layouts() const override { return false; }
  std::string note(const Problem&, const Arrays&) const override { return {}; }  // of inputs that the mixer does not see

 protected:
  // The products beside the mixer's work; norms and sums are some 20 flops for each of their 2 * width. What must move is x, the
  // layer's output and every parameter.
  Cost page_cost(const Problem& p) const override {
    const LayerShape shape = shape_of(p);
    const auto tokens = static_cast<double>(p.batch * p.q_len), width = static_cast<double>(shape.width);
    const double projections = 1 + (reads_queries(*mixer_) ? 2 : 0) + (reads_values(*mixer_) ? 1 : 0);
    Cost cost = mixer_->cost(p);
    cost.flops += 2 * tokens * width * (projections * width + 2 * static_cast<double>(shape.mlp));
    cost.bytes = 2 * static_cast<double>(bytes_of(p.dtype, p.batch * p.q_len * shape.width)) +
                 static_cast<double>(parameter_bytes(parameters(p)));
    return cost;
  }
  Cost backward_cost(const Problem&) const override { return {}; }

  Status supports_options(const Problem& p) const override {
    if (Status status = mixer_->supports(p); !status) return status;
    return supports_unseen(*mixer_, p);
  }

 private:
  // In refusals; no registry knows it.
  static VariantName name_around(const Variant& mixer) {
    return {.id = mixer.name().label() + " in a layer", .options = mixer.name().options};
  }

  template <class T>
  Tensor<T> define(const Problem& p, const Values<T>& in, const ParameterSet<T>& set) const {
    ParameterSet<T> renamed;
    for (const auto& [name, tensor] : set.all()) renamed.set(name_in_layer(name), tensor);
    const Tensor<T> x = from_heads(in.x());
    return to_heads(layer(shape_of(p), *mixer_, Weights<T>(renamed), x, Mixing::definition), p.heads);
  }

  std::unique_ptr<Variant> mixer_;
  std::shared_ptr<LayerClock> clock_;
  VariantInfo info_;
};

}  // namespace

std::unique_ptr<Variant> layer_around(std::unique_ptr<Variant> mixer, std::shared_ptr<LayerClock> clock) {
  return std::make_unique<LayerVariant>(std::move(mixer), std::move(clock));
}

}  // namespace attn
