// A PlanProblem as the plugin ABI's structs. Owns every struct and array that it points to; the
// graph and the rig must outlive it. Immutable; any thread may read it.
//
//   ProblemView view(problem);
//   plugin->plan(view.get(), host);
#pragma once

#include <string>
#include <vector>

#include "engine/plugin/planner.h"
#include "tandem/plugin.h"

namespace tandem {

class ProblemView {
 public:
  explicit ProblemView(const PlanProblem& problem);
  ProblemView(const ProblemView&) = delete;
  ProblemView& operator=(const ProblemView&) = delete;

  const tandem_problem* get() const { return &problem_; }

 private:
  // One direction of a link, with its curve in the ABI's units.
  struct Curve {
    std::vector<uint64_t> bytes;
    std::vector<double> seconds;
  };

  void AddDevices(const PlanProblem& problem);
  void AddLinks(const Rig& rig);
  void AddLink(const LinkProfile& profile, const Curve& curve, tandem_device_id src,
               tandem_device_id dst);
  void AddBlocks(const BlockGraph& graph);

  std::vector<std::string> names_;
  Curve link_curve_;
  Curve host_curve_;
  std::vector<tandem_device> devices_;
  std::vector<tandem_link> links_;
  std::vector<tandem_block> blocks_;
  std::vector<const tandem_device*> device_pointers_;
  std::vector<const tandem_link*> link_pointers_;
  std::vector<const tandem_block*> block_pointers_;
  tandem_problem problem_{};
};

}  // namespace tandem
