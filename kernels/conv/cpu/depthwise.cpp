// Depthwise convolution: every channel has one filter of its own. All directions in 1D, 2D and 3D go through one engine
// (depthwise_engine.hpp) on padded fp32 scratch (depthwise_staging.hpp), cut by depthwise_plan.hpp.
#include "conv/cpu/depthwise.hpp"

#include "conv/cpu/families.hpp"

namespace accelops::ACCELOPS_ISA {

void depthwise(const ConvProblem& p, const ConvTiles& tiles, const ConvOperands& o, int threads) {
  if (p.direction == Direction::wgrad) depthwise_weight(p, tiles, o, threads);
  else if (tiles.value[4] && depthwise_goes_direct(p)) depthwise_direct(p, tiles, o, threads);
  else depthwise_data(p, tiles, o, threads);
}

}  // namespace accelops::ACCELOPS_ISA
