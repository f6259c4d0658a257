// Values as text: Python's str() and repr(), and JSON as Hugging Face's tojson writes it.
#pragma once

#include <optional>
#include <string>

#include "engine/model/text/jinja/value.h"

namespace tandem::jinja {

// What {{ value }} prints; nothing for an undefined value.
std::string ToText(Runtime& runtime, const Value& value);

// json.dumps(value, ensure_ascii=False, indent=indent).
std::string ToJson(Runtime& runtime, const Value& value, std::optional<int64_t> indent);

}  // namespace tandem::jinja
