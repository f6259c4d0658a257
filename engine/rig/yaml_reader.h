// Strict YAML: every key is declared by who reads it, an unknown or duplicate key is an error with
// file, line and a near miss, and so is a value of the wrong kind. Used for rigs, links and
// scenarios. yaml-cpp keeps duplicate keys silently and reports missing ones without a position; so
// only its parser is used, and the tree is ours. Anchors, aliases, tags, second documents, files
// over 1 MiB and nesting over 32 levels are refused.
//
// Values, maps and documents are cheap to copy and independent of each other; nothing is shared
// that changes.
//
//   YamlDocument doc = YamlDocument::Load(path);           // size cap, no aliases, no duplicates
//   YamlMap map = doc.root().AsMap();
//   std::string name = map.String("name");                  // required
//   double gap = map.Double("launch_gap_us", 3.0);          // optional
//   map.Finish();                                           // unknown keys are refused here
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace tandem {

class YamlMap;
struct YamlNode;  // one node of the tree: immutable, shared

// A value with its place in the file.
class YamlValue {
 public:
  YamlValue(std::shared_ptr<const YamlNode> node, std::string file, std::string path);

  bool IsScalar() const;
  bool IsSequence() const;
  bool IsMap() const;
  bool IsNull() const;
  std::string AsString() const;
  bool AsBool() const;      // true/false only
  int64_t AsInt() const;    // decimal; "1k" and octal are refused
  double AsDouble() const;  // finite
  std::vector<YamlValue> AsSequence() const;
  YamlMap AsMap() const;
  std::string Where() const;  // "file.yaml:12"; "override" for what Override put there
  std::string Path() const { return path_; }  // "workload.prompt_tokens"
  // Throws Error(kInvalidArgument): "file.yaml:12: workload.rate: <message>".
  [[noreturn]] void FailHere(const std::string& message) const;

 private:
  friend class YamlMap;
  std::shared_ptr<const YamlNode> node_;
  std::string file_;
  std::string path_;
};

// A map that is being read. Each getter marks its key as known.
class YamlMap {
 public:
  const YamlValue& value() const { return value_; }
  bool Has(const std::string& key) const;
  std::optional<YamlValue> Get(const std::string& key);  // marks the key as known
  YamlValue Require(const std::string& key);
  std::string String(const std::string& key);
  std::string String(const std::string& key, const std::string& fallback);
  double Double(const std::string& key);
  double Double(const std::string& key, double fallback);
  int64_t Int(const std::string& key);
  int64_t Int(const std::string& key, int64_t fallback);
  bool Bool(const std::string& key, bool fallback);
  std::vector<std::string> Keys() const;
  // Refuses keys nobody asked for, naming line and nearest known key.
  void Finish() const;

 private:
  friend class YamlValue;
  explicit YamlMap(YamlValue value);
  YamlValue value_;
  std::vector<std::string> known_;
};

class YamlDocument {
 public:
  // Throws Error(kNotFound | kInvalidArgument).
  static YamlDocument Load(const std::string& path);
  static YamlDocument Parse(const std::string& text, const std::string& name);
  YamlValue root() const;
  // Sets a dotted path ("workload.concurrency") to a YAML scalar, list or map given as text,
  // creating maps on the way. For command-line overrides. A whole number selects an element of a
  // list ("sweep.0.model"). Other copies of this document keep what they had.
  void Override(const std::string& dotted, const std::string& yaml_text);

 private:
  YamlDocument(std::shared_ptr<const YamlNode> root, std::string name);
  std::shared_ptr<const YamlNode> root_;
  std::string name_;
};

}  // namespace tandem
