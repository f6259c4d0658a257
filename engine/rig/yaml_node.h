// The tree behind yaml_reader.h, and the parser that builds it; for this folder's own files.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace tandem {

struct YamlNode {
  enum class Kind { kNull, kScalar, kSequence, kMap };
  Kind kind = Kind::kNull;
  int line = 0;         // 1-based; 0 for what an override made
  bool quoted = false;  // a quoted scalar is text, never a number
  std::string scalar;
  std::vector<std::string> keys;                          // of a map, in file order
  std::vector<int> key_lines;                             // parallel to keys
  std::vector<std::shared_ptr<const YamlNode>> children;  // of a sequence, or parallel to keys
};

inline constexpr uint64_t kMaxYamlBytes = uint64_t{1} << 20;
inline constexpr size_t kMaxYamlDepth = 32;

// Throws Error(kInvalidArgument): "file:line: message", or without the line when it is 0.
[[noreturn]] void FailAtLine(const std::string& file, int line, const std::string& message);

// The tree of one document; a null node when the text holds none. `name` is for messages.
// Throws Error(kInvalidArgument) for everything that yaml_reader.h says is refused.
std::shared_ptr<const YamlNode> ParseYaml(const std::string& text, const std::string& name);

}  // namespace tandem
