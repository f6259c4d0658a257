// The plan's text form: lossless, one op a line, stable, diffable; golden tests and the plugin
// helper process speak it. FormatPlan(ParsePlan(t)) == t for any t that FormatPlan wrote.
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
// A '#' starts a comment. Attributes with default values are left out; the others are path=,
// algorithm=, queue= and, in the form with calls, call=. A word that holds a space, a quote or a
// '#' is written in double quotes with \", \\ and \xNN escapes.
#pragma once

#include <string>
#include <string_view>

#include "engine/plan/plan.h"

namespace tandem {

// How much FormatPlan writes. kPlan leaves out the numbers of the plugin's calls, so that golden
// files do not change with them; kWithCalls loses nothing; kHashed also leaves out who wrote the
// plan and from which knobs (plan.h, PlanHash).
enum class PlanText : uint8_t { kPlan, kWithCalls, kHashed };

std::string FormatPlan(const Plan& plan, PlanText text = PlanText::kPlan);
// One line without its end; no call number.
std::string FormatOp(const Op& op);
// `name` is for messages ("plan.txt:17: ..."). Throws Error(kPlan) with line and what was expected.
// Reads every form that FormatPlan writes. Bounded: refuses more than 1,000,000 ops, places or
// slots.
Plan ParsePlan(std::string_view text, const std::string& name);

// The lines that differ between two plans' texts, "-" of `a` and "+" of `b`, with three lines of
// context around them; empty when the texts are equal.
std::string DiffPlans(const Plan& a, const Plan& b);

}  // namespace tandem
