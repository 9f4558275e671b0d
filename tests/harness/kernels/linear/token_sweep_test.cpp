#include "attn/kernels/linear/token_sweep.hpp"

#include <cmath>
#include <vector>

#include "attn/core/rng.hpp"
#include "catch.hpp"

using namespace attn;
using namespace attn::kernels;

namespace {

std::vector<float> normals(index_t count, std::uint64_t stream) {
  std::vector<float> values(static_cast<std::size_t>(count));
  Rng(1, stream).normals(values);
  return values;
}

void halves(index_t count, float* n) {
  for (index_t i = 0; i < count; ++i) n[i] = 1 / (2 * n[i]);
}

}  // namespace

TEST_CASE("a token's sweep adds its outer product to faded sums and answers queries by them, whatever the sizes") {
  for (const index_t features : {1, 2, 33, 64}) {
    for (const index_t width : {1, 7, 16, 64, 75}) {
      for (const index_t rows : {0, 1, 2, 3, 4, 5, 9}) {
        for (const float keep : {1.0f, 0.75f}) {
          INFO(features << " features, " << width << " wide, " << rows << " queries, keep " << keep);
          const auto first = normals(features * width, 1), first_total = normals(features, 2);
          auto sums = first, total = first_total;
          const auto key = normals(features, 3), value = normals(width, 4), queries = normals(rows * features, 5);
          std::vector<float> out(static_cast<std::size_t>(rows * width)), norm(static_cast<std::size_t>(rows));
          const TokenSweep token{.features = features,
                                 .value_dim = width,
                                 .sums = sums.data(),
                                 .total = total.data(),
                                 .key = key.data(),
                                 .value = value.data(),
                                 .keep = keep,
                                 .rows = rows,
                                 .queries = {queries.data(), features},
                                 .denominators = halves,
                                 .norm = norm.data(),
                                 .out = {out.data(), width}};
          sweep_token(token);
          const auto at = [&](index_t f, index_t c) { return static_cast<std::size_t>(f * width + c); };
          double error = 0;
          for (index_t f = 0; f < features; ++f) {
            const auto i = static_cast<std::size_t>(f);
            error = std::max(error, std::abs(static_cast<double>(total[i]) - static_cast<double>(keep * first_total[i] + key[i])));
            for (index_t c = 0; c < width; ++c)
              error = std::max(error,
                               std::abs(static_cast<double>(sums[at(f, c)]) -
                                        static_cast<double>(keep * first[at(f, c)] + key[i] * value[static_cast<std::size_t>(c)])));
          }
          CHECK(error < 1e-6);
          for (index_t r = 0; r < rows; ++r) {
            double n = 0, size = 0;
            for (index_t f = 0; f < features; ++f) {
              const double q = static_cast<double>(queries[static_cast<std::size_t>(r * features + f)]);
              n += q * static_cast<double>(total[static_cast<std::size_t>(f)]);
              size += std::abs(q * static_cast<double>(total[static_cast<std::size_t>(f)]));
            }
            for (index_t c = 0; c < width; ++c) {
              double product = 0, sizes = 0;
              for (index_t f = 0; f < features; ++f) {
                const double term =
                    static_cast<double>(queries[static_cast<std::size_t>(r * features + f)]) * static_cast<double>(sums[at(f, c)]);
                product += term, sizes += std::abs(term);
              }
              const double expected = product / (2 * n), found = static_cast<double>(out[static_cast<std::size_t>(r * width + c)]);
              CHECK(std::abs(found - expected) <= 1e-5 * (sizes / std::abs(2 * n) + std::abs(expected) * size / std::abs(n)));
            }
          }

          // Taken up first and answered then: the same bits.
          auto sums_apart = first, total_apart = first_total;
          std::vector<float> out_apart(out.size());
          TokenSweep apart = token;
          apart.sums = sums_apart.data(), apart.total = total_apart.data(), apart.out.data = out_apart.data();
          apart.rows = 0;
          sweep_token(apart);
          apart.rows = rows;
          apart.key = nullptr;
          sweep_token(apart);
          CHECK((sums_apart == sums && total_apart == total && out_apart == out));
        }
      }
    }
  }
}
