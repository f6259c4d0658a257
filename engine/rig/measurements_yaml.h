// The `measured` part of a rig file, written and read back. Inside engine/rig; everybody else loads
// and formats whole rigs (rig.h).
#pragma once

#include <string>

#include "engine/rig/measurements.h"
#include "engine/rig/yaml_reader.h"

namespace tandem {

// A double-quoted YAML scalar.
std::string QuotedYaml(const std::string& text);

// Lines of a map's value, indented by two.
std::string FormatMeasurements(const RigMeasurements& measured);
// Throws Error(kInvalidArgument) with file and line.
RigMeasurements ReadMeasurements(const YamlValue& value);

}  // namespace tandem
