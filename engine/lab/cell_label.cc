#include "engine/lab/cell_label.h"

namespace tandem {

std::string AxisLabel(const std::string& axis, const std::string& value) {
  const bool speaks_for_itself =
      axis == "model" || axis == "rig" || axis == "link" || axis == "plugin";
  return speaks_for_itself ? value : axis + "=" + value;
}

}  // namespace tandem
