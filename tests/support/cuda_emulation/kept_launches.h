// Launches kept in place of being done, where the emulation does them at once (runtime.cc): what a
// recorded step is to the tests of the kernels.
//
//   std::vector<std::function<void()>> kept;
//   KeepLaunches(&kept);  ... ops ...  KeepLaunches(nullptr);
//   for (const auto& launch : kept) launch();
#pragma once

#include <functional>
#include <vector>

namespace tandem::cuda {

// Of this thread; null: they are done again.
void KeepLaunches(std::vector<std::function<void()>>* kept);

}  // namespace tandem::cuda
