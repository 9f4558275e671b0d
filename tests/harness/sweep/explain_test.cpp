#include "attn/sweep/explain.hpp"

#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include "attn/core/text.hpp"
#include "catch.hpp"
#include "harness/variant_of.hpp"

using namespace attn;
using attn::test::registry;
using attn::test::variant_of;

namespace {

// Every set of options that another choice, or 1 in the place of 0, makes of the defaults.
std::vector<std::string> with_other_options() {
  std::vector<std::string> names;
  for (const auto& type : registry().all()) {
    names.push_back(type->id);
    for (const OptionDoc& option : type->options) {
      if (option.type == "choice") {
        for (const auto value : split(option.range, '|')) names.push_back(type->id + ":" + option.name + "=" + std::string(value));
      } else if (option.type == "integer" && option.low <= 301 && option.high >= 301) {
        names.push_back(type->id + ":" + option.name + "=301");
      }
    }
  }
  return names;
}

// What the words of an axis come to, if they are all known: of the problem, of options that are not 0, L.
class Words {
 public:
  Words(const Problem& p, const Variant& v)
      : known_{{"heads", p.heads},
               {"kv_heads", p.kv_heads},
               {"head_dim", p.head_dim},
               {"value_dim", p.value_dim},
               {"q_len", p.q_len}} {
    known_["L"] = p.q_len;
    for (const auto& [name, value] : v.name().options.all()) {
      const auto number = parse_integer(value);
      if (!number || *number == 0) {
        without_number_.insert(name);
        continue;
      }
      known_.emplace(name, *number);
      if (name == "max_len") known_["L"] = *number;
    }
  }

  // A word that has no number here, but is an option's name or one that the tensor's page explains.
  bool is_named(std::string_view word) const { return without_number_.contains(word); }

  std::optional<index_t> extent(std::string_view axis) const {
    index_t sum = 0, sign = 1, product = 1;
    for (const auto word : split(axis, ' ')) {
      if (word == "+" || word == "-") {
        sum += sign * product;
        sign = word == "+" ? 1 : -1, product = 1;
        continue;
      }
      if (const auto number = parse_integer(word)) {
        product *= *number;
      } else if (const auto found = known_.find(word); found != known_.end()) {
        product *= found->second;
      } else {
        CHECK(is_named(word));
        return {};
      }
    }
    return sum + sign * product;
  }

 private:
  std::map<std::string, index_t, std::less<>> known_;
  std::set<std::string, std::less<>> without_number_{"blocks", "c", "columns", "outputs"};
};

}  // namespace

TEST_CASE("every tensor says what its axes are, and they are its shape") {
  std::size_t known = 0, unknown = 0;
  for (const std::string& name : with_other_options()) {
    const auto v = variant_of(name);
    for (const bool causal : {false, true}) {
      Problem p{.heads = 6, .kv_heads = 3, .q_len = 211, .kv_len = 211, .head_dim = 10, .value_dim = 14, .causal = causal};
      if (!v->supports(p)) p.kv_heads = 6;
      if (!v->supports(p)) p.value_dim = 10;
      if (!v->supports(p)) continue;
      for (const ParameterSpec& spec : v->parameters(p)) {
        INFO(v->name().text() << ": " << spec.name << " [" << spec.axes << "]");
        CHECK(!spec.doc.empty());
        std::vector<std::string_view> axes = split(spec.axes, ',');
        REQUIRE(axes.size() == spec.shape.size());
        for (std::size_t a = 0; a < axes.size(); ++a) {
          const std::string_view axis = a == 0 ? axes[a] : axes[a].substr(1);
          const auto extent = Words(p, *v).extent(axis);
          extent ? ++known : ++unknown;
          // What is more than there are tokens is cut to them.
          if (extent) CHECK((*extent == spec.shape[a] || (axis == "clusters" && spec.shape[a] == p.q_len)));
        }
      }
    }
  }
  CHECK(known > 5 * unknown);  // most are numbers, and were compared
}

TEST_CASE("explained tensors are the variant's own and those that other options or causality add, once each") {
  const auto names_of = [](const std::string& name) {
    std::string text;
    for (const ExplainedTensor& t : explained_tensors(*variant_of(name), registry()))
      text += t.name + "[" + t.axes + "]" + t.where + ";";
    return text;
  };
  CHECK(names_of("full").empty());
  CHECK(names_of("nystrom") == "conv[heads, conv, 1]conv above 0;");
  CHECK(names_of("nystrom:conv=33") == "conv[heads, conv, 1];");
  CHECK(names_of("linformer") ==
        "E[1, k, L];E[kv_heads, k, L]sharing=none;F[kv_heads, k, L]sharing=none;F[1, k, L]sharing=headwise;");
  CHECK(names_of("compressed:by=mean") ==
        "null_k[kv_heads, 1, head_dim]causal;null_v[kv_heads, 1, value_dim]causal;W_k[kv_heads, r head_dim, head_dim]by=conv;"
        "W_v[kv_heads, r value_dim, value_dim]by=conv;");
}

TEST_CASE("what a variant needs is said") {
  CHECK(needs(*variant_of("full")) == "Reads Q, K and V. Takes a mask.");
  CHECK(needs(*variant_of("gru")) == "Reads x, which is Q. value_dim must be head_dim. As many keys as queries.");
  CHECK(needs(*variant_of("fnet")) == "Reads x, which is Q. value_dim must be head_dim. As many keys as queries. Never causal.");
  CHECK(needs(*variant_of("synth_random")) == "Reads x, which is Q, and V. As many keys as queries.");
}

TEST_CASE("an explanation has formula, fine print and the order of gates") {
  const auto list = registry().configure_list("lstm");
  REQUIRE(list);
  const std::string text = explain_text(*list, registry());
  for (const char* part : {"lstm: Long short-term memory", "forget gate of Gers et al. 2000",
                           "U              [heads, head_dim, 4 head_dim]", "columns of i, f, g, o in turn"})
    CHECK(text.find(part) != std::string::npos);
}
