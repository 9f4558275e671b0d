// graph:KIND and graph:FILE, tokens that are nodes: seeded features, normal, -> projection.hpp, and the edges as array `neighbours`.
//   ring        i - degree/2 .. i + degree/2
//   grid        rows as long as the square root of N: up to four neighbours
//   regular     degree/2 cycles through all nodes, each in a random order: node i beside its neighbours there
//   smallworld  a ring of degree/4 to each side, of whose edges a tenth ends at a random node (Watts and Strogatz 1998)
//   molecules   parts of 24 nodes, each a tree whose nodes hang on one of the three before, with two rings of six
//   FILE        a line an edge, "i j", of nodes counted from 0; '#' begins a comment. The first N nodes are served, and the edges among them.
// Edges go both ways. With ,expander=d as many edges of a random graph are added to each node, which bring any two nodes within a few steps
// of each other (Shirzad et al. 2023, arXiv:2303.06147); a made graph has so many less of its own. With ,order=rcm nodes are numbered anew,
// so that neighbours have near numbers: reverse Cuthill and McKee (1969; George 1971).
#include <algorithm>
#include <charconv>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include "attn/core/rng.hpp"
#include "attn/core/text.hpp"
#include "attn/inputs/file.hpp"
#include "attn/inputs/kinds.hpp"
#include "attn/inputs/projection.hpp"

namespace attn {

namespace {

using Edges = std::vector<std::pair<index_t, index_t>>;
using Maker = void (*)(index_t nodes, index_t degree, const Rng&, Edges&);

void ring(index_t nodes, index_t degree, const Rng&, Edges& edges) {
  for (index_t i = 0; i < nodes; ++i)
    for (index_t far = 1; far <= degree / 2 && 2 * far < nodes; ++far) edges.emplace_back(i, (i + far) % nodes);
}

void grid(index_t nodes, index_t, const Rng&, Edges& edges) {
  index_t side = 1;
  while ((side + 1) * (side + 1) <= nodes) ++side;
  for (index_t i = 0; i < nodes; ++i) {
    if ((i + 1) % side != 0 && i + 1 < nodes) edges.emplace_back(i, i + 1);
    if (i + side < nodes) edges.emplace_back(i, i + side);
  }
}

void regular(index_t nodes, index_t degree, const Rng& rng, Edges& edges) {
  if (nodes < 3) return;
  std::vector<index_t> order(static_cast<std::size_t>(nodes));
  for (index_t cycle = 0; cycle < degree / 2; ++cycle) {
    const Rng own = rng.substream(static_cast<std::uint64_t>(cycle));
    std::iota(order.begin(), order.end(), index_t{0});
    for (index_t i = nodes - 1; i > 0; --i)
      std::swap(order[static_cast<std::size_t>(i)], order[static_cast<std::size_t>(own.below(i, i + 1))]);
    for (std::size_t i = 0; i < order.size(); ++i) edges.emplace_back(order[i], order[(i + 1) % order.size()]);
  }
}

void small_world(index_t nodes, index_t degree, const Rng& rng, Edges& edges) {
  const Rng ends = rng.substream(1);
  ring(nodes, degree / 2, rng, edges);
  for (std::size_t e = 0; e < edges.size(); ++e) {
    const auto at = static_cast<index_t>(e);
    if (rng.uniform(at) >= 0.1) continue;
    const index_t end = ends.below(at, nodes);
    if (end != edges[e].first) edges[e].second = end;
  }
}

void molecules(index_t nodes, index_t, const Rng& rng, Edges& edges) {
  constexpr index_t atoms = 24;
  for (index_t i = 0; i < nodes; ++i) {
    const index_t atom = i % atoms;
    if (atom == 6 || atom == 18) edges.emplace_back(i - 5, i);  // closes a ring with the chain of the six
    if (atom > 0)
      edges.emplace_back(
          (atom >= 2 && atom <= 6) || (atom >= 14 && atom <= 18) ? i - 1 : i - 1 - rng.below(i, std::min<index_t>(3, atom)), i);
  }
}

constexpr std::pair<std::string_view, Maker> makers[] = {
    {"ring", ring}, {"grid", grid}, {"regular", regular}, {"smallworld", small_world}, {"molecules", molecules}};

struct Changes {
  bool rcm = false;
  index_t expander = 0;  // even

  std::string text() const { return (expander > 0 ? ",expander=" + std::to_string(expander) : "") + (rcm ? ",order=rcm" : ""); }
};

// Takes them off the end of what names a graph.
Result<Changes> take_changes(std::string_view& argument) {
  Changes changes;
  for (;;) {
    const std::size_t comma = argument.rfind(',');
    if (comma == std::string_view::npos) return changes;
    const std::string_view last = argument.substr(comma + 1);
    if (last.starts_with("order=")) {
      if (last != "order=rcm") return refuse("input graph: '" + std::string(last) + "'; accepted: order=rcm");
      changes.rcm = true;
    } else if (last.starts_with("expander=")) {
      const auto given = parse_integer(last.substr(9));
      if (!given || *given < 2 || *given > 1024 || *given % 2 != 0)
        return refuse("input graph: '" + std::string(last) + "'; accepted: expander=2, 4, ... 1024");
      changes.expander = *given;
    } else {
      return changes;
    }
    argument = argument.substr(0, comma);
  }
}

// Numbers the nodes in the order of a breadth-first walk of each part, reversed: from its node of least degree, neighbours of less degree
// first, then by number.
void renumber(index_t nodes, Edges& edges) {
  std::vector<std::vector<index_t>> near(static_cast<std::size_t>(nodes));
  const auto of = [&](index_t node) -> std::vector<index_t>& { return near[static_cast<std::size_t>(node)]; };
  for (const auto& [a, b] : edges) {
    if (a >= nodes || b >= nodes || a == b) continue;
    of(a).push_back(b);
    of(b).push_back(a);
  }
  const auto before = [&](index_t a, index_t b) { return std::pair(of(a).size(), a) < std::pair(of(b).size(), b); };
  std::vector<index_t> starts(static_cast<std::size_t>(nodes)), walk, number(static_cast<std::size_t>(nodes), -1);
  std::iota(starts.begin(), starts.end(), index_t{0});
  std::ranges::sort(starts, before);
  const auto visit = [&](index_t node) {
    if (number[static_cast<std::size_t>(node)] >= 0) return;
    number[static_cast<std::size_t>(node)] = nodes - 1 - std::ssize(walk);
    walk.push_back(node);
  };
  for (const index_t start : starts) {
    std::size_t next = walk.size();
    for (visit(start); next < walk.size(); ++next) {
      std::vector<index_t>& list = of(walk[next]);
      std::ranges::sort(list, before);
      std::ranges::for_each(list, visit);
    }
  }
  for (auto& [a, b] : edges) {
    if (a < nodes && b < nodes) a = number[static_cast<std::size_t>(a)], b = number[static_cast<std::size_t>(b)];
  }
}

class Graph final : public Input {
 public:
  Graph(std::string_view kind, Maker maker, const Changes& changes)
      : Input(name_of(kind, changes)), maker_(maker), changes_(changes) {}
  Graph(std::string_view path, Edges edges, index_t nodes, const Changes& changes)
      : Input(name_of(path, changes)), edges_(std::move(edges)), nodes_(nodes), changes_(changes) {}

  Result<Problem> adapt(const Problem& wish) const override {
    Problem p = wish;
    if (nodes_ > 0 && wish.q_len == wish.kv_len) p.q_len = p.kv_len = std::clamp<index_t>(wish.kv_len, 1, nodes_);
    return Input::adapt(p);
  }

  TokenPicture picture(const Problem& p, const std::vector<InputSpec>& named, std::uint64_t seed) const override {
    const auto spec = std::ranges::find(named, "neighbours", &InputSpec::name);
    const index_t degree = spec != named.end() ? spec->extents[3] : degree_unless_said;
    TokenPicture picture;
    for (const auto& [a, b] : edges(p, 0, degree, seed))
      if (a < p.kv_len && b < p.kv_len) picture.edges.emplace_back(a, b);
    return picture;
  }

 protected:
  Status fill(const Problem& p, std::uint64_t seed, const Tensors& tensors) const override {
    const index_t width = model_width(p);
    const Rng rng(seed, "graph features");
    const auto embed = [&](index_t batch, index_t first, index_t count, float* x) {
      for (index_t i = 0; i < count; ++i) {
        rng.substream(static_cast<std::uint64_t>(batch * sequence_length(p) + first + i))
            .normals({x + i * width, static_cast<std::size_t>(width)});
      }
    };
    project(p, seed, embed, tensors);
    return {};
  }

  Result<bool> fill_named(const Problem& p, const InputSpec& spec, std::uint64_t seed, std::span<float> to) const override {
    if (spec.name != "neighbours") return false;
    const index_t batch = spec.extents[0], degree = spec.extents[3];
    for (index_t b = 0; b < batch; ++b) {
      const Status listed =
          list(edges(p, b, degree, seed), p.kv_len, degree,
               to.subspan(static_cast<std::size_t>(b * p.kv_len * degree), static_cast<std::size_t>(p.kv_len * degree)));
      if (!listed) return listed.refusal();
    }
    return true;
  }

 private:
  static constexpr index_t degree_unless_said = 16;

  static std::string name_of(std::string_view what, const Changes& changes) {
    return "graph:" + std::string(what) + changes.text();
  }

  Edges edges(const Problem& p, index_t batch, index_t degree, std::uint64_t seed) const {
    const auto rng = [&](const char* purpose) { return Rng(seed, purpose).substream(static_cast<std::uint64_t>(batch)); };
    Edges made = edges_;
    if (maker_ != nullptr) maker_(p.kv_len, std::max<index_t>(degree - changes_.expander, 0), rng("graph edges"), made);
    if (changes_.expander > 0) regular(p.kv_len, changes_.expander, rng("graph expander"), made);
    if (changes_.rcm) renumber(p.kv_len, made);
    return made;
  }

  // Both ends of each edge, in the order of the edges.
  Status list(const Edges& edges, index_t nodes, index_t degree, std::span<float> to) const {
    std::fill(to.begin(), to.end(), -1.0f);
    std::vector<index_t> count(static_cast<std::size_t>(nodes), 0);
    const auto add = [&](index_t node, index_t neighbour) {
      index_t& own = count[static_cast<std::size_t>(node)];
      if (own < degree) to[static_cast<std::size_t>(node * degree + own)] = static_cast<float>(neighbour);
      ++own;
    };
    for (const auto& [a, b] : edges) {
      if (a >= nodes || b >= nodes) continue;
      add(a, b);
      if (a != b) add(b, a);
    }
    const auto most = std::ranges::max_element(count);
    if (*most <= degree) return {};
    return refuse("input " + name() + ": node " + std::to_string(most - count.begin()) + " has " + std::to_string(*most) +
                  " neighbours; accepted: " + std::to_string(degree) + " at most, or a variant's degree=" + std::to_string(*most));
  }

  Maker maker_ = nullptr;
  Edges edges_;
  index_t nodes_ = 0;
  Changes changes_;
};

// Of one line; nothing for an empty one.
Result<std::optional<std::pair<index_t, index_t>>> parse_edge(std::string_view line) {
  line = trim(line.substr(0, line.find('#')));
  if (line.empty()) return std::optional<std::pair<index_t, index_t>>();
  constexpr index_t most = (1 << 24) - 1;
  const auto number = [&](std::string_view& text) -> index_t {
    while (!text.empty() && (text.front() == ' ' || text.front() == '\t' || text.front() == ',')) text.remove_prefix(1);
    index_t value = -1;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    text.remove_prefix(static_cast<std::size_t>(end - text.data()));
    return error == std::errc{} && value <= most ? value : -1;
  };
  std::string_view rest = line;
  const index_t a = number(rest), b = number(rest);
  if (a < 0 || b < 0 || !trim(rest).empty()) {
    return refuse("'" + std::string(line.substr(0, 60)) + "' is no edge; accepted: two nodes, 0.." + std::to_string(most));
  }
  return std::optional(std::pair(a, b));
}

Result<std::unique_ptr<Input>> open(std::string_view argument) {
  const auto changes = take_changes(argument);
  if (!changes) return changes.refusal();
  std::vector<std::string> kinds;
  for (const auto& [kind, maker] : makers) {
    if (kind == argument) return std::unique_ptr<Input>(new Graph(kind, maker, *changes));
    kinds.emplace_back(kind);
  }
  if (argument.empty()) return refuse("input graph: names no graph; accepted: " + join(kinds, ", ") + " or a file of edges");
  const std::string path(argument);
  auto file = MappedFile::open(path);
  if (!file) return refuse("input graph: " + file.reason() + "; accepted: " + join(kinds, ", ") + " or a file of edges");
  const auto bytes = file->bytes();
  std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  Edges edges;
  index_t nodes = 0;
  for (index_t line = 1; !text.empty(); ++line) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const auto edge = parse_edge(text.substr(0, end));
    if (!edge) return refuse("input graph: " + path + ":" + std::to_string(line) + ": " + edge.reason());
    if (*edge) {
      edges.push_back(**edge);
      nodes = std::max({nodes, (*edge)->first + 1, (*edge)->second + 1});
    }
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  if (edges.empty()) return refuse("input graph: " + path + " has no edge");
  return std::unique_ptr<Input>(new Graph(path, std::move(edges), nodes, *changes));
}

}  // namespace

InputKind graph_input() {
  return {{"graph", "graph:ring|grid|regular|smallworld|molecules|FILE[,expander=d][,order=rcm]",
           "nodes of a graph, and its edges for variants that read neighbours; rcm: numbered so that neighbours lie near"},
          open};
}

}  // namespace attn
