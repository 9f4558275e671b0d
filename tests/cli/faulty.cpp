// A variant made to fail, so that the harness can be seen to notice and to survive it. Otherwise it copies V.
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#include "attn/variant/variant.hpp"

namespace attn {

struct Faulty {
  struct Engine {
    static constexpr bool reads_layouts = true;
  };
  // clang-format off
  enum class How {
    // Seen by a sweep
    none, crash, hang, spin, stall, hog, churn, wrong, shifted, forget, raise, leave, fork, deaf,
    // Of the second of several ranks
    rank_killed, rank_hangs, rank_raises, rank_differs,
    // Each breaks the property of --verify whose name it begins with, and no other (output, scratch, bounds_scratch: dtypes too)
    agreement, output, bounds, bounds_before, bounds_inputs, bounds_scratch, repeat, threads, scratch, allocations,
    allocations_mmap, arena, arena_process, causality, heads, linearity, supports, gradient, backward, values,
    values_leak, decode, splits, merge, ragged, ragged_padding, pages, mask, dtypes, cost, cost_flops
  };
  static constexpr std::array dtypes = {DType::f32, DType::bf16};
  static constexpr bool takes_mask = true;
  struct Options {
    How how = How::none;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>().choice(
        "how", &Options::how,
        {{"none", How::none}, {"crash", How::crash}, {"hang", How::hang}, {"spin", How::spin}, {"stall", How::stall},
         {"hog", How::hog}, {"churn", How::churn}, {"shifted", How::shifted},
         {"wrong", How::wrong}, {"forget", How::forget}, {"raise", How::raise}, {"leave", How::leave}, {"fork", How::fork},
         {"deaf", How::deaf}, {"rank_killed", How::rank_killed}, {"rank_hangs", How::rank_hangs}, {"rank_raises", How::rank_raises},
         {"rank_differs", How::rank_differs}, {"agreement", How::agreement}, {"output", How::output}, {"bounds", How::bounds},
         {"bounds_before", How::bounds_before}, {"bounds_inputs", How::bounds_inputs}, {"bounds_scratch", How::bounds_scratch},
         {"repeat", How::repeat}, {"threads", How::threads}, {"scratch", How::scratch}, {"allocations", How::allocations},
         {"allocations_mmap", How::allocations_mmap}, {"arena", How::arena}, {"arena_process", How::arena_process},
         {"causality", How::causality}, {"heads", How::heads}, {"linearity", How::linearity}, {"supports", How::supports},
         {"gradient", How::gradient}, {"backward", How::backward}, {"values", How::values}, {"values_leak", How::values_leak},
         {"decode", How::decode}, {"splits", How::splits}, {"merge", How::merge}, {"ragged", How::ragged},
         {"ragged_padding", How::ragged_padding}, {"pages", How::pages}, {"mask", How::mask}, {"dtypes", How::dtypes}, {"cost", How::cost}, {"cost_flops", How::cost_flops}},
        "what goes wrong");
  }
  // clang-format on
  static VariantInfo info() {
    return {.title = "Fails on purpose",
            .formula = "out_i = v_i",
            .paper = "baseline",
            .cost_in_n = "N D",
            .exactness = Exactness::different,
            .cross = false,
            .time_exponent = 1};
  }
  static Cost cost(const Problem& p, const Options& o) {
    return {.flops = o.how == How::cost_flops ? 1e7 * static_cast<double>(p.q_len) : 1, .bytes = tensor_bytes(p), .exps = 0};
  }

  // A rank that knows of a tensor sees another problem than one that does not.
  static Parameters parameters(const Problem&, const Options& o) {
    if (o.how != How::rank_differs || !second_rank()) return {};
    return {{.name = "own", .shape = {1}, .init = init::zeros()}};
  }

  // Takes memory and gives it back.
  static void touch(std::size_t mib) {
    std::vector<char> memory(mib << 20, 1);
    volatile char last = memory.back();
    static_cast<void>(last);
  }

  // The last token.
  static StateSpec state(const Problem& p, const Options&) { return {{{"v", {p.heads, p.value_dim}}}}; }

  template <class T>
  static Tensor<T> definition(const Problem&, const Options& o, const Values<T>& in, const ParameterSet<T>&) {
    return take(o.how == How::gradient ? detach(in.v) : in.v, Indices({static_cast<index_t>(in.position.size())}, in.position), 2);
  }

  Faulty(const Problem& p, const Options& o, WorkspacePlan& workspace)
      : p_(p), how_(o.how), threads_(workspace.threads()), plan_number_(plans_made()++), scratch_(workspace.shared<float>(1)) {
    if (how_ == How::churn) touch(192);
    if (how_ == How::supports && p.batch == 3) throw std::runtime_error("three batch items are too many");
  }

  void run(const Arrays& given, const ParameterSet<float>&, Workspace& workspace) const {
    const AsFloats floats(given);
    const FloatArrays a = floats.views();
    before(a);
    const index_t last = how_ == How::forget ? p_.q_len - 1 : p_.q_len;
    for (index_t b = 0; b < p_.batch; ++b)
      for (index_t h = 0; h < p_.heads; ++h)
        for (index_t i = 0; i < last; ++i)
          for (index_t d = 0; d < p_.value_dim; ++d) {
            if (i >= length(given, b)) {
              a.out(b, h, i, d) = how_ == How::ragged_padding ? value(floats.arrays(), b, h, i, d) : 0;
              continue;
            }
            const float v = value(floats.arrays(), b, h, how_ == How::shifted ? std::min(i + 1, last - 1) : i, d);
            switch (how_) {
              case How::output: a.out(b, h, i, d) += v; break;
              case How::linearity: a.out(b, h, i, d) = std::fmin(std::fmax(v, -64.0f), 64.0f) + (std::isnan(v) ? v : 0); break;
              case How::values: a.out(b, h, i, d) = std::fmax(v, -1e30f); break;  // NaN becomes a number
              default: a.out(b, h, i, d) = v;
            }
          }
    if (how_ == How::dtypes && given.v.dtype() == DType::bf16) nudge(a.out(0, 0, 0, 0));
    if (how_ == How::ragged && !given.lengths.empty()) nudge(a.out(p_.batch - 1, 0, 0, 0));
    if (given.layout.plain()) after(a, workspace);
  }

  void absorb(const Arrays& given, const ParameterSet<float>&, const State& state, Workspace&) const {
    const AsFloats floats(given);
    const FloatArrays a = floats.views();
    const auto last = state["v"].f32_out<3>();
    const index_t t = how_ == How::splits ? 0 : a.v.extent(2) - 1;
    for (index_t b = 0; b < p_.batch; ++b)
      for (index_t h = 0; h < p_.heads; ++h)
        for (index_t d = 0; d < p_.value_dim; ++d) last(b, h, d) = a.v(b, h, t, d);
  }
  void answer(const Arrays& given, const ParameterSet<float>&, const State& state, Workspace&) const {
    const AsFloats floats(given);
    const FloatArrays a = floats.views();
    const auto last = state["v"].f32<3>();
    for (index_t b = 0; b < p_.batch; ++b)
      for (index_t h = 0; h < p_.heads; ++h)
        for (index_t d = 0; d < p_.value_dim; ++d)
          a.out(b, h, 0, d) = last(b, h, d) + (how_ == How::decode && state.end() == 5 ? 0.5f : 0);
  }
  void merge(State& into, const State& later) const {
    const auto to = into["v"].f32_out<3>(), from = later["v"].f32_out<3>();
    for (index_t b = 0; b < p_.batch; ++b)
      for (index_t h = 0; h < p_.heads; ++h)
        for (index_t d = 0; d < p_.value_dim; ++d) to(b, h, d) = from(b, h, d) + (how_ == How::merge ? 0.5f : 0);
  }

  void backward(const Arrays&, const ParameterSet<float>&, const Gradients& given, Workspace&) const {
    const FloatGradients g(given);
    for_each(g.d_q, [](float& x) { x = 0; });
    for_each(g.d_k, [](float& x) { x = 0; });
    for (index_t batch = 0; batch < p_.batch; ++batch)
      for (index_t h = 0; h < p_.heads; ++h)
        for (index_t i = 0; i < p_.q_len; ++i)
          for (index_t d = 0; d < p_.value_dim; ++d) {
            g.d_v(batch, h, i, d) = how_ == How::gradient   ? 0
                                    : how_ == How::backward ? -g.d_out(batch, h, i, d)
                                                            : g.d_out(batch, h, i, d);
          }
  }

 private:
  static bool second_rank() {
    const char* rank = std::getenv("OMPI_COMM_WORLD_RANK");
    return rank != nullptr && std::string(rank) == "1";
  }
  index_t length(const Arrays& a, index_t b) const {
    return a.lengths.empty() ? p_.kv_len : a.lengths[static_cast<std::size_t>(b)];
  }
  float value(const Arrays& a, index_t b, index_t h, index_t i, index_t d) const {
    const KeyLayout& layout = a.layout;
    const auto v = a.v.f32();
    if (layout.pages == nullptr) return v(b, h, i, d);
    const index_t page = how_ == How::pages ? i / layout.page_rows : layout.pages[b * layout.pages_stride + i / layout.page_rows];
    return *(&v(b, h, layout.row(i), d) + page * layout.v_page_stride);
  }

  static std::atomic<int>& plans_made() {
    static std::atomic<int> made{0};
    return made;
  }

  void before(const FloatArrays& a) const {
    switch (how_) {
      case How::crash: *static_cast<volatile int*>(nullptr) = 0; break;
      case How::hang:
        for (;;) ::usleep(1000);
      case How::stall:
        while (p_.q_len >= 63) ::usleep(1000);
        break;
      case How::spin:
        for (volatile bool forever = true; forever;) {
        }
        break;
      case How::hog:
        for (;;) {
          auto* block = new std::vector<char>(std::size_t{64} << 20, 'x');
          sink_ = block->data();
        }
      case How::churn: touch(96); break;
      case How::raise: throw std::runtime_error("thrown on purpose");
      case How::leave: std::exit(0);
      case How::fork:
        if (::fork() == 0) ::pause();
        break;
      case How::rank_killed:
        if (second_rank()) ::kill(::getpid(), SIGKILL);
        break;
      case How::rank_hangs:
        while (second_rank()) ::usleep(1000);
        break;
      case How::rank_raises:
        if (second_rank()) throw std::runtime_error("thrown on purpose");
        break;
      case How::deaf: ::close(STDERR_FILENO); break;
      case How::bounds_before: beyond_ = (&a.q(0, 0, 0, 0))[-1]; break;
      case How::bounds_inputs: const_cast<float&>(a.k(0, 0, 0, 0)) += 0.0f; break;
      case How::bounds: beyond_ = (&a.v(p_.batch - 1, p_.heads - 1, p_.q_len - 1, p_.value_dim - 1))[1]; break;
      case How::allocations:
        sink_ = static_cast<char*>(std::malloc(100));
        std::free(const_cast<char*>(sink_));
        break;
      case How::allocations_mmap: ::munmap(::mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), 4096); break;
      case How::arena_process:
        if (const pid_t child = ::fork(); child == 0) {
          ::_exit(0);
        } else {
          ::waitpid(child, nullptr, 0);
        }
        break;
      case How::arena: {
        pthread_t thread;
        if (::pthread_create(
                &thread, nullptr, [](void* nothing) { return nothing; }, nullptr) == 0)
          ::pthread_join(thread, nullptr);
        break;
      }
      case How::cost:
        for (index_t i = 0; i < p_.q_len; ++i)
          for (index_t j = 0; j < p_.q_len; ++j) beyond_ = static_cast<float>(j);
        break;
      default: break;
    }
  }

  // Errors below the allowance, so that only the property in question can see them.
  static void nudge(float& x) { x = std::nextafter(x, 4.0f); }

  void after(const FloatArrays& a, Workspace& workspace) const {
    const index_t last = p_.q_len - 1;
    float& first = a.out(0, 0, 0, 0);
    switch (how_) {
      case How::wrong: for_each(a.out, [](float& x) { x += 0.5f; }); break;
      case How::mask:
        if (p_.mask.given()) first += 0.5f;
        break;
      case How::agreement:
        if (p_.q_len == 500) first += 0.5f;
        break;
      case How::repeat:
        if (plan_number_ % 2 == 1 && p_.q_len == 63) nudge(first);
        break;
      case How::threads:
        if (threads_ == 1) first += 0.5f;
        break;
      case How::bounds_scratch: workspace.shared(scratch_).data()[1] = 1; break;
      case How::values_leak: first += 0 * a.v(p_.batch - 1, p_.heads - 1, 3 / p_.value_dim % p_.q_len, 3 % p_.value_dim); break;
      case How::scratch: first += workspace.shared(scratch_)[0]; break;
      case How::causality:
        if (p_.causal && p_.q_len == 63 && a.v(0, 0, last, 0) > 0) nudge(first);
        break;
      case How::heads:
        if (!p_.causal && p_.q_len == 63 && a.v(p_.batch - 1, p_.heads - 1, last, 0) > 0) nudge(first);
        break;
      default: break;
    }
  }

  template <class F>
  static void for_each(const View<float, 4>& view, F f) {
    for (index_t b = 0; b < view.extent(0); ++b)
      for (index_t h = 0; h < view.extent(1); ++h)
        for (index_t i = 0; i < view.extent(2); ++i)
          for (index_t d = 0; d < view.extent(3); ++d) f(view(b, h, i, d));
  }

  Problem p_;
  How how_;
  int threads_;
  int plan_number_;
  Booking<float> scratch_;
  mutable volatile char* sink_ = nullptr;
  mutable volatile float beyond_ = 0;
};
ATTN_VARIANT(faulty, Faulty)

}  // namespace attn
