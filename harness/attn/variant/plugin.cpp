#include "attn/variant/plugin.hpp"

#include <dlfcn.h>

#include <cstring>

namespace attn {

Status load_plugin(const std::string& path, Registry& registry) {
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
  if (name->is_native() ? variant != nullptr : registry.find(name->id, name->implementation) != nullptr)
    return refuse("plugin '" + path + "' brings " + (name->is_native() ? "variant" : "implementation") + " '" + entry->id +
                  "', which exists already");
  if (!name->is_native() && variant == nullptr)
    return refuse("plugin '" + path + "' brings '" + entry->id + "', but there is no variant '" + name->id + "'");
  entry->enter(registry, entry->family);
  return {};
}

Status load_plugins(const std::vector<std::string>& paths, Registry& registry) {
  for (const std::string& path : paths) {
    if (Status status = load_plugin(path, registry); !status) return status;
  }
  return {};
}

}  // namespace attn
