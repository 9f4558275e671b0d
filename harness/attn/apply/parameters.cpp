#include "attn/apply/parameters.hpp"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <vector>

#include "attn/inputs/file.hpp"
#include "attn/inputs/npy.hpp"

namespace attn {

Result<LoadedParameters> load_or_draw(const Parameters& specs, const std::string& folder, FunctionRef<ParameterSet<float>()> draw) {
  LoadedParameters result;
  if (folder.empty() || specs.empty()) {
    result.set = draw();
    return result;
  }
  const auto path_of = [&](const ParameterSpec& spec) { return (std::filesystem::path(folder) / (spec.name + ".npy")).string(); };
  std::error_code failed;
  std::string present, absent;
  for (const auto& spec : specs) (std::filesystem::exists(path_of(spec), failed) ? present : absent) = path_of(spec);
  if (present.empty()) {
    result.set = draw();
    std::filesystem::create_directories(folder, failed);
    for (const auto& spec : specs) {
      if (Status written = write_npy(path_of(spec), spec.shape, result.set[spec.name].values()); !written) return written.refusal();
    }
    return result;
  }
  if (!absent.empty()) return refuse("'" + present + "' is there, '" + absent + "' is not");
  for (const auto& spec : specs) {
    const auto file = MappedFile::open(path_of(spec));
    if (!file) return file.refusal();
    const auto array = parse_npy(file->bytes());
    if (!array) return refuse("'" + file->path() + "': " + array.reason());
    if (array->shape != spec.shape)
      return refuse("'" + file->path() + "' has shape " + shape_text(array->shape) + ", this problem needs " +
                    shape_text(spec.shape));
    std::vector<float> values(static_cast<std::size_t>(volume(spec.shape)));
    read_floats(*array, 0, values);
    const auto infinite = std::ranges::find_if_not(values, [](float x) { return std::isfinite(x); });
    if (infinite != values.end())
      return refuse("'" + file->path() + "': element " + std::to_string(infinite - values.begin()) + " is not a finite float");
    if (spec.check) {
      if (Status fits = spec.check(values); !fits) return refuse("'" + file->path() + "': " + fits.reason());
    }
    result.set.set(spec.name, Tensor<float>(spec.shape, values));
  }
  result.loaded = true;
  return result;
}

}  // namespace attn
