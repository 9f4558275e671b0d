#include "attn/variant/plugin.hpp"

#include <dlfcn.h>

#include <cstring>
#include <set>

namespace attn {

namespace {

std::set<std::string> names_of(const Registry& registry) {
  std::set<std::string> names;
  for (const auto& type : registry.all()) names.insert(type->id);
  for (const auto& other : registry.all_implementations()) names.insert(VariantName{other->id, other->name, {}}.text());
  return names;
}

// What is `replaceable` gives way, once.
Status load(const std::string& path, Registry& registry, std::set<std::string>& replaceable) {
  const std::string file = path.find('/') == std::string::npos ? "./" + path : path;
  void* library = ::dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return refuse("plugin '" + path + "' cannot be loaded: " + ::dlerror());
  const auto* entry = static_cast<const PluginEntry*>(::dlsym(library, "attn_plugin"));
  if (entry == nullptr)
    return refuse("plugin '" + path + "' exports no attn_plugin: build it with ATTN_PLUGIN defined (attnbench_add_plugin does)");
  if (entry->abi_version != abi_version) {
    return refuse("plugin '" + path + "' has ABI version " + std::to_string(entry->abi_version) + ", this attnbench accepts " +
                  std::to_string(abi_version) + ": rebuild it");
  }
  if (std::strcmp(entry->build_tag, build_tag()) != 0) {
    return refuse("plugin '" + path + "' was built as " + entry->build_tag + ", this attnbench accepts " + build_tag() +
                  ": rebuild it");
  }
  const auto name = VariantName::parse(entry->id);
  if (!name) return refuse("plugin '" + path + "': " + name.reason());
  const VariantType* variant = registry.find(name->id);
  if (name->is_native() ? variant != nullptr : registry.find(name->id, name->implementation) != nullptr) {
    if (replaceable.erase(name->text()) == 0)
      return refuse("plugin '" + path + "' brings " + (name->is_native() ? "variant" : "implementation") + " '" + entry->id +
                    "', which exists already: rename its file, or --prefer plugin takes it instead");
    registry.remove(name->id, name->implementation);
  }
  if (!name->is_native() && variant == nullptr)
    return refuse("plugin '" + path + "' brings '" + entry->id + "', but there is no variant '" + name->id + "'");
  entry->enter(registry, entry->family);
  return {};
}

}  // namespace

Status load_plugin(const std::string& path, Registry& registry, Prefer prefer) { return load_plugins({path}, registry, prefer); }

Status load_plugins(const std::vector<std::string>& paths, Registry& registry, Prefer prefer) {
  std::set<std::string> replaceable;
  if (prefer == Prefer::plugin) replaceable = names_of(registry);
  for (const std::string& path : paths) {
    if (Status status = load(path, registry, replaceable); !status) return status;
  }
  return {};
}

}  // namespace attn
