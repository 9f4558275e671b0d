#include "attn/kernels/spectral/causal_convolution.hpp"

#include <vector>

#include "harness/kernels/matrix.hpp"

using namespace attn;
using namespace attn::kernels;
using namespace attn::kernels::test;

TEST_CASE("causal convolution: is the sum that defines it, for lengths, channels and filters of every kind") {
  on_every_isa([] {
    for (const index_t n : {1, 100, 128, 129, 257, 1000}) {
      for (const index_t channels : {1, 5, 32, 35}) {
        for (const index_t taps : {index_t{1}, index_t{50}, index_t{129}, index_t{300}, n}) {
          INFO("n=" << n << " channels=" << channels << " taps=" << taps);
          Matrix h = random(taps, channels, 0.1f, 1), x = random(n, channels, 1, 2), y(n, channels);
          WorkspacePlan plan(1);
          const CausalConvolution convolution(n, channels, taps, plan);
          const Workspace workspace(plan, Workspace::Mode::checked);
          for (index_t task = 0; task < convolution.near_tasks(); ++task) convolution.near(task, h.rows(), x.rows(), y.into());
          const View<const float, 4> from(x.values.data(), {1, 1, n, channels}, {0, 0, x.stride, 1});
          const View<float, 4> to(y.values.data(), {1, 1, n, channels}, {0, 0, y.stride, 1});
          for (index_t task = 0; task < convolution.far_tasks(); ++task) convolution.far(task, 0, h.rows(), from, to, workspace, 0);
          CHECK(workspace.gaps_intact());
          double error2 = 0, size2 = 0;
          for (index_t t = 0; t < n; ++t) {
            for (index_t c = 0; c < channels; ++c) {
              double sum = 0;
              for (index_t u = 0; u <= t && u < taps; ++u)
                sum += static_cast<double>(h.at(u, c)) * static_cast<double>(x.at(t - u, c));
              const double error = static_cast<double>(y.at(t, c)) - sum;
              error2 += error * error;
              size2 += sum * sum;
            }
          }
          CHECK(error2 <= 1e-12 * size2);
          CHECK(std::isnan(y.values[static_cast<std::size_t>(channels)]));
        }
      }
    }
  });
}
