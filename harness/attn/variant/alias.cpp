#include "attn/variant/alias.hpp"

#include <algorithm>
#include <cctype>

namespace attn {

const std::vector<Alias>& aliases() {
  constexpr std::string_view grouped = "full with fewer --kv-heads than --heads, such as --heads 32 --kv-heads 8";
  static const std::vector<Alias> list = {
      {"flash", "full"},
      {"flash_attention", "full"},
      {"sdpa", "full"},
      {"softmax", "full"},
      {"vanilla", "full"},
      {"mha", "full"},
      {"naive", "full@unfused"},
      {"eager", "full@unfused"},
      {"gqa", "", grouped},
      {"grouped_query", "", grouped},
      {"mqa", "", "full with one of --kv-heads, such as --heads 32 --kv-heads 1"},
      {"multi_query", "", "full with one of --kv-heads, such as --heads 32 --kv-heads 1"},
      {"paged", "", "--kv-layout paged:16, of variants that read pages, such as full"},
      {"sliding_window", "local"},
      {"swa", "local"},
      {"window", "local"},
      {"streaming_llm", "local:right=0,sinks=4"},
      {"attention_sink", "local:right=0,sinks=4"},
      {"sparse_transformer", "strided"},
      {"minference", "block_topk"},
      {"lsh", "reformer"},
      {"lsh_attention", "reformer"},
      {"favor", "performer"},
      {"favor+", "performer"},
      {"linear_attention", "linear"},
      {"linear_transformer", "linear"},
      {"nystromformer", "nystrom"},
      {"set_transformer", "inducing"},
      {"isab", "inducing"},
      {"gated_deltanet", "gated_delta"},
      {"deltanet", "gated_delta:gate=no"},
      {"mamba", "mamba2"},
      {"ssd", "mamba2"},
      {"retnet", "retention"},
      {"rwkv", "rwkv7"},
      {"kimi", "kda"},
      {"hyena", "long_conv"},
      {"based", "taylor"},
      {"differential", "diff"},
      {"bahdanau", "additive"},
      {"luong", "luong_general"},
      {"deepseek", "mla"},
  };
  return list;
}

const Alias* find_alias(std::string_view word) {
  std::string plain(word);
  std::ranges::transform(plain, plain.begin(),
                         [](char c) { return c == '-' ? '_' : static_cast<char>(std::tolower(static_cast<unsigned char>(c))); });
  const auto found = std::ranges::find(aliases(), plain, &Alias::word);
  return found == aliases().end() ? nullptr : &*found;
}

}  // namespace attn
