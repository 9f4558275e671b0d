#include "attn/guest/spec.hpp"

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <utility>

#include "attn/core/text.hpp"
#include "attn/guest/process.hpp"
#include "attn/variant/remote.hpp"

namespace attn {

namespace {

using nlohmann::json;

constexpr int protocol = 1;

bool is_name(const std::string& text) {
  const auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_'; };
  return !text.empty() && text.front() >= 'a' && text.front() <= 'z' && std::all_of(text.begin(), text.end(), letter);
}

template <class T, std::size_t N>
T one_of(const std::array<std::pair<const char*, T>, N>& names, const std::string& given, const char* key) {
  for (const auto& [name, value] : names) {
    if (name == given) return value;
  }
  std::vector<std::string> accepted;
  for (const auto& [name, value] : names) accepted.emplace_back(name);
  throw std::invalid_argument(std::string(key) + " is '" + given + "', accepted: " + join(accepted, ", "));
}

constexpr std::array exactness_names = {std::pair{"exact", Exactness::exact}, std::pair{"pattern", Exactness::pattern},
                                        std::pair{"approximation", Exactness::approximation},
                                        std::pair{"different", Exactness::different}};
constexpr std::array causality_names = {std::pair{"both", Causality::both}, std::pair{"never", Causality::never},
                                        std::pair{"always", Causality::always}};

OptionDoc option_of(const std::string& name, const json& usual) {
  OptionDoc option{.name = name, .doc = "of the guest"};
  if (usual.is_boolean()) {
    option.type = "choice", option.range = "no|yes", option.default_value = usual.get<bool>() ? "yes" : "no";
  } else if (usual.is_number_integer()) {
    option.type = "integer", option.default_value = std::to_string(usual.get<index_t>());
  } else if (usual.is_number()) {
    option.type = "number", option.default_value = format_number(usual.get<double>());
  } else {
    throw std::invalid_argument("option '" + name + "' has no usual value that is a number or a truth value");
  }
  return option;
}

GuestVariant variant_of(const std::string& id, const json& about) {
  if (!is_name(id)) throw std::invalid_argument("'" + id + "' is no name of a variant: small letters, digits and '_'");
  GuestVariant v{.id = id};
  v.info.title = about.value("title", id);
  v.info.formula = about.value("formula", "the guest's");
  v.info.paper = about.value("paper", "a guest's own");
  v.info.cost_in_n = about.value("cost_in_n", "unknown");
  v.info.exactness = one_of(exactness_names, about.value("exactness", "approximation"), "exactness");
  v.info.causality = one_of(causality_names, about.value("causality", "both"), "causality");
  v.info.cross = about.value("cross", true);
  v.info.grouped_heads = about.value("grouped_heads", false);
  v.info.heads_independent = about.value("heads_independent", true);
  v.info.row_wise = false;  // its reference is asked for whole outputs
  v.info.time_exponent = about.value("time_exponent", 2.0);
  v.reference = about.value("reference", false);
  v.describes = about.value("describes", false);
  const json options = about.value("options", json::object());
  for (const auto& [name, usual] : options.items()) v.options.push_back(option_of(name, usual));
  return v;
}

GuestSpec spec_of(const json& about) {
  if (const int spoken = about.at("protocol").get<int>(); spoken != protocol)
    throw std::invalid_argument("protocol is " + std::to_string(spoken) + ", accepted: " + std::to_string(protocol));
  GuestSpec spec{.name = about.at("name").get<std::string>(), .command = about.at("command").get<std::string>()};
  if (!is_name(spec.name) || spec.name == native)
    throw std::invalid_argument("name is '" + spec.name + "', accepted: small letters, digits and '_', not 'native'");
  spec.title = about.value("title", spec.name);
  if (about.contains("dtypes")) spec.dtypes.clear();
  for (const json& name : about.value("dtypes", json::array())) {
    const auto dtype = parse_dtype(name.get<std::string>());
    if (!dtype || !facts_of(*dtype).of_queries)
      throw std::invalid_argument("dtypes names " + name.dump() + ", accepted: " + dtype_names(true));
    spec.dtypes.push_back(*dtype);
  }
  for (const auto& [id, one] : about.at("variants").items()) spec.variants.push_back(variant_of(id, one));
  if (spec.variants.empty()) throw std::invalid_argument("variants is empty");
  spec.text = about.dump();
  return spec;
}

Result<GuestSpec> read(const std::string& text, const std::string& command) {
  try {
    json about = json::parse(text);
    if (about.is_object() && about.contains("error")) return refuse(about.at("error").get<std::string>());
    if (!command.empty()) about["command"] = command;
    return spec_of(about);
  } catch (const json::parse_error&) {
    return refuse("'" + text.substr(0, 60) + "' is no JSON");
  } catch (const std::exception& e) {
    return refuse(e.what());
  }
}

std::string text_of(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

// "python3 FILE.py", where FILE.py leaves the talking to attnguest.py.
std::string spoken_for(const std::string& command) {
  const auto words = split(trim(command), ' ');
  if (words.size() != 2 || !words[1].ends_with(".py")) return command;
  const std::string text = text_of(std::string(words[1]));
  const bool only_functions = text.find("def attention(") != std::string::npos && text.find("attnguest") == std::string::npos;
  return only_functions ? std::string(words[0]) + " \"$ATTN_GUEST_FOLDER/attnguest.py\" " + std::string(words[1]) : command;
}

}  // namespace

Result<GuestSpec> read_guest_spec(const std::string& text) { return read(text, ""); }

Result<GuestSpec> greet_guest(const std::string& given, double timeout_s) {
  const auto refusal = [&](const std::string& why) { return refuse("--guest '" + given + "': " + why); };
  const std::string command = spoken_for(given);
  try {
    GuestProcess process(command, {});
    auto spec = read(process.ask(json{{"ask", "hello"}, {"protocol", protocol}}.dump(), "hello", timeout_s), command);
    return spec ? spec : refusal("its answer to 'hello': " + spec.reason());
  } catch (const RemoteError& e) {
    return refusal(e.what());
  }
}

Result<std::vector<GuestSpec>> shipped_guests() {
  std::vector<std::string> files;
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator(guest_folder(), none)) {
    if (entry.path().extension() == ".json") files.push_back(entry.path().string());
  }
  std::sort(files.begin(), files.end());
  std::vector<GuestSpec> list;
  for (const std::string& file : files) {
    auto spec = read(text_of(file), "");
    if (!spec) return refuse(file + ": " + spec.reason());
    list.push_back(*std::move(spec));
  }
  return list;
}

}  // namespace attn
