#include "engine/plugin/candidates.h"

#include <algorithm>

namespace tandem {

std::vector<std::vector<Knob>> GridPoints(const PluginInfo& plugin,
                                          const std::vector<Knob>& fixed) {
  std::vector<std::vector<Knob>> points{{}};
  for (const KnobInfo& knob : plugin.knobs) {
    std::vector<std::string> values = knob.grid;
    for (const Knob& f : fixed) {
      if (f.key == knob.name) values = {f.value};
    }
    std::vector<std::vector<Knob>> longer;
    for (const std::vector<Knob>& point : points) {
      for (const std::string& value : values) {
        longer.push_back(point);
        longer.back().push_back({knob.name, value});
      }
    }
    if (longer.size() > kMaxGridPoints) longer.resize(kMaxGridPoints);
    points = std::move(longer);
  }
  return points;
}

}  // namespace tandem
