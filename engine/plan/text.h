// The plan's text form: lossless, one op a line, stable, diffable; golden tests and the plugin helper
// process speak it. FormatPlan(ParsePlan(t)) == t for any t that FormatPlan wrote.
//
//   tandem-plan 1
//   plugin layer_split 0.1.0
//   devices 2 lanes 1 wire f32
//   knob microbatches 2
//   place b0[0:768) d0
//   slot s0 d0 3538944
//   program decode lane 0 microbatches 1 none
//   d0 run b17[0:4) m1 <v31 >v33
//   d0 norm b18 m1 <v33 >v34
//   d0 add b18 m1 <v33 <v35 >v36
//   d0->d1 transfer m1 path=p2p <v36 >v37
//   d0,d1 all_reduce m0 algorithm=one_shot <v5 <v6 >v7 >v8
//   host->d0 fetch b19[0:3) s1
//   d0->d1 kv_move b17[0:4) m0
//   d1 sample m1 <v90
// A '#' starts a comment. Attributes with default values are left out.
#pragma once

#include <string>
#include <string_view>

#include "engine/plan/plan.h"

namespace tandem {

std::string FormatPlan(const Plan& plan);
std::string FormatOp(const Op& op);
// `name` is for messages ("plan.txt:17: ..."). Throws Error(kPlan) with line and what was expected.
// Bounded: refuses more than 1,000,000 ops.
Plan ParsePlan(std::string_view text, const std::string& name);

}  // namespace tandem
