// What the switches of GPUs (engine/run/gpu_switches.h) make of a price beyond what they make of
// the rig (DriveRig), and what no price knows of them.
//
// A library's products are priced at the rate at which this rig's own was measured (the figure
// "products of bf16" of `tandem rig probe`, which is cuBLAS's on GPUs), or not at all: no rate is
// taken from elsewhere. It is a bound: tandem rounds weights to BF16 before, which is not priced.
#pragma once

#include <string>
#include <vector>

#include "engine/plan/cost.h"
#include "engine/plan/plan.h"
#include "engine/rig/rig.h"
#include "engine/run/gpu_switches.h"

namespace tandem {

struct ProductRates {
  std::vector<double> efficiency;  // by device, as PriceStep takes it; empty: the devices' own
  std::string unknown;             // not empty: why the step has no price
};

// Of one step of the program, in an engine whose steps have at most `step_rows` rows.
ProductRates RatesOfProducts(const Rig& rig, const GpuSwitches& gpu, const Program& program,
                             const StepShape& shape, uint32_t step_rows);

// Why a rig has no price of a library's products; empty where it has.
std::string WhyLibraryHasNoRate(const Rig& rig);

// What to say beside prices, a line each: what a rate is, and which switches change nothing.
std::vector<std::string> NotesOnPrices(const Rig& rig, const GpuSwitches& gpu);

}  // namespace tandem
