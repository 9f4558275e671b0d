#include "attn/program/worker.hpp"

#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <iterator>

#include "attn/guest/host.hpp"
#include "attn/program/exit.hpp"
#include "attn/program/process.hpp"
#include "attn/ranks/crew.hpp"
#include "attn/record/sink.hpp"
#include "attn/variant/plugin.hpp"

namespace attn {

namespace {

constexpr const char *worker_flag = "--worker", *prefer_flag = "--prefer-plugin", *guests_flag = "--guests";

}  // namespace

std::vector<std::string> worker_arguments(const std::string& kind, const std::vector<std::string>& plugins, Prefer prefer,
                                          const std::vector<std::string>& guest_specs) {
  std::vector<std::string> arguments{worker_flag, kind};
  if (prefer == Prefer::plugin) arguments.emplace_back(prefer_flag);
  arguments.insert(arguments.end(), plugins.begin(), plugins.end());
  if (guest_specs.empty()) return arguments;
  arguments.emplace_back(guests_flag);
  arguments.insert(arguments.end(), guest_specs.begin(), guest_specs.end());
  return arguments;
}

bool is_worker(const std::vector<std::string>& arguments) { return !arguments.empty() && arguments.front() == worker_flag; }

int worker_main(const std::vector<std::string>& arguments, const std::vector<WorkerKind>& kinds) {
  const std::string name = arguments.size() > 1 ? arguments[1] : "";
  const auto kind = std::find_if(kinds.begin(), kinds.end(), [&](const WorkerKind& k) { return k.name == name; });
  if (kind == kinds.end()) return fail(exit_usage, worker_flag, "'" + name + "' is no kind of question");
  Registry registry;
  register_builtin_variants(registry);
  const bool prefers = arguments.size() > 2 && arguments[2] == prefer_flag;
  const auto plugins = arguments.begin() + (prefers ? 3 : 2), guests = std::find(plugins, arguments.end(), guests_flag);
  if (Status status = load_plugins({plugins, guests}, registry, prefers ? Prefer::plugin : Prefer::neither); !status)
    return fail(exit_usage, worker_flag, status.reason());
  if (Status status = register_guests({std::min(guests + 1, arguments.end()), arguments.end()}, registry); !status)
    return fail(exit_usage, worker_flag, status.reason());
  register_rank_schemes(registry);
  const std::string answer = kind->answer({std::istreambuf_iterator<char>(std::cin), {}}, registry);
  if (!write_whole(answer_fd, answer)) return exit_failed_cell;
  // Destructors of a plugin or a library cannot spoil an answer that is already given.
  ::_exit(exit_ok);
}

}  // namespace attn
