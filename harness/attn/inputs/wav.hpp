// Sound and its log-mel spectrum.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "attn/core/result.hpp"
#include "attn/inputs/features.hpp"

namespace attn {

struct Sound {
  double rate = 0;             // samples a second
  std::vector<float> samples;  // -1..1, channels averaged
};

// PCM of 8, 16, 24 or 32 bits, any number of channels, 4..384 kHz. Refusals name the field and its byte offset, not the file.
Result<Sound> parse_wav(std::span<const std::byte> file);

// What libsndfile reads: FLAC, Ogg Vorbis and Opus, AIFF, other codes of RIFF; likewise refused, in libsndfile's words.
Result<Sound> parse_sound_file(std::span<const std::byte> file);

// Either, by how the file begins.
Result<Sound> parse_sound(std::span<const std::byte> file);

// One frame of 80 features for each 25 ms window that fits, every 10 ms: Hann window, power spectrum, triangular mel
// filters (mel = 2595 log10(1 + Hz/700)) from 0 to rate/2, ln with a floor of 1e-10, standardised over the whole sound.
// About 10 us a frame: a minute of sound takes 60 ms.
Features log_mel(const Sound& sound);

}  // namespace attn
