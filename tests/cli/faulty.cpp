// A variant made to fail, so that the harness can be seen to survive it. Otherwise it copies V.
#include <unistd.h>

#include <cstdlib>
#include <stdexcept>
#include <vector>

#include "attn/variant/variant.hpp"

namespace attn {

struct Faulty {
  enum class How { none, crash, hang, hog, wrong, forget, raise, leave, fork };
  struct Options {
    How how = How::none;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>().choice("how", &Options::how,
                                         {{"none", How::none},
                                          {"crash", How::crash},
                                          {"hang", How::hang},
                                          {"hog", How::hog},
                                          {"wrong", How::wrong},
                                          {"forget", How::forget},
                                          {"raise", How::raise},
                                          {"leave", How::leave},
                                          {"fork", How::fork}},
                                         "what goes wrong");
  }
  static VariantInfo info() {
    return {.title = "Fails on purpose", .formula = "out_i = v_i", .paper = "baseline", .cost_in_n = "N D", .exactness = Exactness::different, .cross = false};
  }
  static Cost cost(const Problem& p, const Options&) { return {.flops = 1, .bytes = tensor_bytes(p), .exps = 0}; }

  template <class T>
  static Tensor<T> definition(const Problem&, const Options&, const Inputs<T>& in, const ParameterSet<T>&) {
    return take(in.v, Indices({static_cast<index_t>(in.position.size())}, in.position), 2);
  }

  Faulty(const Problem& p, const Options& o, WorkspacePlan&) : p_(p), how_(o.how) {}

  void run(const FloatInputs& in, const ParameterSet<float>&, Output out, Workspace&) const {
    switch (how_) {
      case How::crash: *static_cast<volatile int*>(nullptr) = 0; break;
      case How::hang:
        for (;;) ::usleep(1000);
      case How::hog:
        for (;;) {
          auto* block = new std::vector<char>(std::size_t{64} << 20, 'x');
          sink_ = block->data();
        }
      case How::raise: throw std::runtime_error("thrown on purpose");
      case How::leave: std::exit(0);
      case How::fork:
        if (::fork() == 0) ::pause();
        break;
      case How::none: case How::wrong: case How::forget: break;
    }
    const index_t last = how_ == How::forget ? p_.q_len - 1 : p_.q_len;
    for (index_t b = 0; b < p_.batch; ++b)
      for (index_t h = 0; h < p_.heads; ++h)
        for (index_t i = 0; i < last; ++i)
          for (index_t d = 0; d < p_.value_dim; ++d) out(b, h, i, d) = in.v(b, h, i, d) + (how_ == How::wrong ? 0.5f : 0.0f);
  }

 private:
  Problem p_;
  How how_;
  mutable volatile char* sink_ = nullptr;
};
ATTN_VARIANT(faulty, Faulty)

}  // namespace attn
