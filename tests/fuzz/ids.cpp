// Lists of variants with options, as --variants takes them: what is accepted prints a name that means the same.
#include "attn/variant/variant.hpp"
#include "fuzz.hpp"

using namespace attn;

namespace {

// One option of each kind.
struct Sample {
  enum class Kind { plain, fancy };
  struct Options {
    index_t count = 3;
    double rate = 0.5;
    bool loud = false;
    Kind kind = Kind::plain;
    std::vector<index_t> positions = {1, 2};
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>()
        .integer("count", &Options::count, 1, unlimited, "")
        .number("rate", &Options::rate, -1e300, 1e300, "")
        .flag("loud", &Options::loud, "")
        .choice("kind", &Options::kind, {{"plain", Kind::plain}, {"fancy", Kind::fancy}}, "")
        .positions("positions", &Options::positions, "");
  }
  static VariantInfo info() { return {.title = "Sample"}; }
  static Cost cost(const Problem&, const Options&) { return {}; }
  template <class T>
  static Tensor<T> definition(const Problem&, const Options&, const Values<T>& in, const ParameterSet<T>&) {
    return in.v;
  }
  Sample(const Problem&, const Options&, WorkspacePlan&) {}
  void run(const Arrays&, const ParameterSet<float>&, Workspace&) const {}
};

const Registry& registry() {
  static const Registry whole = [] {
    Registry r;
    r.add(std::make_unique<erase::TypeOf<Sample>>("sample", "first"));
    r.add(std::make_unique<erase::TypeOf<Sample>>("simple", "first"));
    r.add(std::make_unique<erase::TypeOf<Sample>>("other", "second"));
    return r;
  }();
  return whole;
}

}  // namespace

void fuzz(std::span<const std::byte> bytes) {
  const auto list = registry().configure_list(as_text(bytes));
  if (!list) return;
  for (const auto& variant : *list) {
    const auto again = registry().configure(variant->name().text());
    ATTN_ASSERT(again && (*again)->name() == variant->name());
  }
}
