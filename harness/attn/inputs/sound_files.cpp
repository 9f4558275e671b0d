// Sound of other kinds than PCM in RIFF, by libsndfile.
#include <sndfile.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string_view>

#include "attn/inputs/wav.hpp"

namespace attn {

namespace {

// An hour at 48 kHz of two channels: more is no test of attention, and a few bytes of a file can claim it.
constexpr sf_count_t most_samples = sf_count_t{1} << 29;

struct Reader {
  std::span<const std::byte> file;
  sf_count_t at = 0;
};

SF_VIRTUAL_IO reading() {
  SF_VIRTUAL_IO io{};
  io.get_filelen = [](void* reader) { return static_cast<sf_count_t>(static_cast<Reader*>(reader)->file.size()); };
  io.seek = [](sf_count_t offset, int whence, void* data) {
    auto* reader = static_cast<Reader*>(data);
    const auto size = static_cast<sf_count_t>(reader->file.size());
    const sf_count_t from = whence == SEEK_CUR ? reader->at : whence == SEEK_END ? size : 0;
    reader->at = std::clamp<sf_count_t>(from + offset, 0, size);
    return reader->at;
  };
  io.read = [](void* to, sf_count_t count, void* data) {
    auto* reader = static_cast<Reader*>(data);
    count = std::min(count, static_cast<sf_count_t>(reader->file.size()) - reader->at);
    std::memcpy(to, reader->file.data() + reader->at, static_cast<std::size_t>(count));
    reader->at += count;
    return count;
  };
  io.tell = [](void* reader) { return static_cast<Reader*>(reader)->at; };
  return io;
}

// What begins as one of its common formats, or is a RIFF of another code than PCM, which parse_wav reads and whose faults it names.
bool is_for_libsndfile(std::span<const std::byte> file) {
  const std::string_view text(reinterpret_cast<const char*>(file.data()), file.size());
  for (const char* magic : {"fLaC", "OggS", "FORM", ".snd", "caff", "ID3"}) {
    if (text.starts_with(magic)) return true;
  }
  const auto format = text.starts_with("RIFF") ? text.substr(0, 4096).find("fmt ") : std::string_view::npos;
  if (format == std::string_view::npos || text.size() < format + 34) return false;
  const auto code = [&](std::size_t at) { return std::to_integer<int>(file[at]) | std::to_integer<int>(file[at + 1]) << 8; };
  const int first = code(format + 8), extended = 0xfffe;
  return (first == extended ? code(format + 32) : first) != 1;
}

}  // namespace

Result<Sound> parse_sound_file(std::span<const std::byte> file) {
  Reader reader{file};
  SF_VIRTUAL_IO io = reading();
  SF_INFO info{};
  SNDFILE* opened = sf_open_virtual(&io, SFM_READ, &info, &reader);
  if (opened == nullptr) return refuse(std::string("no sound that libsndfile reads: ") + sf_strerror(nullptr));
  std::vector<float> channels;
  std::string why;
  if (info.channels < 1 || info.samplerate < 4000 || info.samplerate > 384000) {
    why = std::to_string(info.samplerate) + " samples a second; accepted: 4000..384000";
  } else if (info.frames < 0 || info.frames > most_samples / info.channels) {
    why = std::to_string(info.frames) + " samples of " + std::to_string(info.channels) + " channels; accepted: up to " +
          std::to_string(most_samples) + " in all";
  } else {
    channels.resize(static_cast<std::size_t>(info.frames * info.channels));
    const sf_count_t read = sf_readf_float(opened, channels.data(), info.frames);
    if (read != info.frames) why = "torn: " + std::to_string(read) + " of " + std::to_string(info.frames) + " samples decode";
  }
  sf_close(opened);
  if (why.empty() && static_cast<double>(info.frames) < info.samplerate * 0.025)
    why = std::to_string(info.frames) + " samples are less than one window of 25 ms";
  if (why.empty() && !std::all_of(channels.begin(), channels.end(), [](float x) { return std::isfinite(x); }))
    why = "samples are no finite numbers";
  if (!why.empty()) return refuse(why);
  Sound sound{.rate = static_cast<double>(info.samplerate), .samples = {}};
  const auto count = static_cast<std::size_t>(info.channels);
  for (std::size_t frame = 0; frame < channels.size(); frame += count) {
    float sum = 0;
    for (std::size_t c = 0; c < count; ++c) sum += channels[frame + c];
    sound.samples.push_back(sum / static_cast<float>(count));
  }
  return sound;
}

Result<Sound> parse_sound(std::span<const std::byte> file) {
  return is_for_libsndfile(file) ? parse_sound_file(file) : parse_wav(file);
}

}  // namespace attn
