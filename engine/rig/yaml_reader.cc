// Readers over the tree of yaml_node.h.
#include "engine/rig/yaml_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <utility>

#include "engine/base/error.h"
#include "engine/base/suggest.h"
#include "engine/rig/yaml_node.h"

namespace tandem {
namespace {

using NodePtr = std::shared_ptr<const YamlNode>;

std::string Join(const std::string& path, const std::string& key) {
  return path.empty() ? key : fmt::format("{}.{}", path, key);
}

const char* KindName(const YamlNode& node) {
  switch (node.kind) {
    case YamlNode::Kind::kNull:
      return "nothing";
    case YamlNode::Kind::kScalar:
      return "a single value";
    case YamlNode::Kind::kSequence:
      return "a list";
    case YamlNode::Kind::kMap:
      return "a map";
  }
  return "nothing";
}

std::string Got(const YamlNode& node) {
  if (node.kind != YamlNode::Kind::kScalar) return KindName(node);
  return fmt::format("{}'{}'", node.quoted ? "the quoted text " : "", node.scalar);
}

// Digits in front of a number say "octal" to some readers and nothing to others: refused.
bool HasLeadingZero(const std::string& text) {
  size_t i = !text.empty() && text[0] == '-' ? 1 : 0;
  return text.size() > i + 1 && text[i] == '0' && text[i + 1] >= '0' && text[i + 1] <= '9';
}

// The same tree without line numbers, for what an override brings.
NodePtr WithoutLines(const NodePtr& node) {
  auto copy = std::make_shared<YamlNode>(*node);
  copy->line = 0;
  copy->key_lines.assign(copy->keys.size(), 0);
  for (NodePtr& child : copy->children) child = WithoutLines(child);
  return copy;
}

// `node` (may be null) with the value at `keys[depth..]` replaced; shares what did not change.
NodePtr Replaced(const NodePtr& node, const std::vector<std::string>& keys, size_t depth,
                 const NodePtr& value, const std::string& dotted) {
  if (depth == keys.size()) return value;
  const std::string& key = keys[depth];
  auto copy = node && node->kind != YamlNode::Kind::kNull ? std::make_shared<YamlNode>(*node)
                                                          : std::make_shared<YamlNode>();
  if (copy->kind == YamlNode::Kind::kNull) copy->kind = YamlNode::Kind::kMap;
  if (copy->kind == YamlNode::Kind::kSequence) {
    size_t index = 0;
    auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), index);
    if (error != std::errc() || end != key.data() + key.size() || index >= copy->children.size()) {
      Fail(ErrorCode::kInvalidArgument,
           fmt::format("override {}: '{}' is no element of a list of {} (want 0 to {})", dotted,
                       key, copy->children.size(), copy->children.size() - 1));
    }
    copy->children[index] = Replaced(copy->children[index], keys, depth + 1, value, dotted);
    return copy;
  }
  if (copy->kind != YamlNode::Kind::kMap) {
    Fail(ErrorCode::kInvalidArgument,
         fmt::format("override {}: there is {} where '{}' should be looked up (want a map)", dotted,
                     KindName(*copy), key));
  }
  auto place = std::find(copy->keys.begin(), copy->keys.end(), key);
  size_t index = static_cast<size_t>(place - copy->keys.begin());
  if (place == copy->keys.end()) {
    copy->keys.push_back(key);
    copy->key_lines.push_back(0);
    copy->children.push_back(nullptr);
  }
  copy->children[index] = Replaced(copy->children[index], keys, depth + 1, value, dotted);
  return copy;
}

}  // namespace

YamlValue::YamlValue(std::shared_ptr<const YamlNode> node, std::string file, std::string path)
    : node_(std::move(node)), file_(std::move(file)), path_(std::move(path)) {}

bool YamlValue::IsScalar() const { return node_->kind == YamlNode::Kind::kScalar; }
bool YamlValue::IsSequence() const { return node_->kind == YamlNode::Kind::kSequence; }
bool YamlValue::IsMap() const { return node_->kind == YamlNode::Kind::kMap; }
bool YamlValue::IsNull() const { return node_->kind == YamlNode::Kind::kNull; }

std::string YamlValue::Where() const {
  return node_->line > 0 ? fmt::format("{}:{}", file_, node_->line) : "override";
}

void YamlValue::FailHere(const std::string& message) const {
  Fail(ErrorCode::kInvalidArgument, path_.empty()
                                        ? fmt::format("{}: {}", Where(), message)
                                        : fmt::format("{}: {}: {}", Where(), path_, message));
}

std::string YamlValue::AsString() const {
  if (!IsScalar()) FailHere(fmt::format("got {} (want text)", KindName(*node_)));
  return node_->scalar;
}

bool YamlValue::AsBool() const {
  if (IsScalar() && !node_->quoted) {
    if (node_->scalar == "true") return true;
    if (node_->scalar == "false") return false;
  }
  FailHere(fmt::format("got {} (want true or false)", Got(*node_)));
}

int64_t YamlValue::AsInt() const {
  const std::string& text = node_->scalar;
  int64_t value = 0;
  if (IsScalar() && !node_->quoted && !HasLeadingZero(text)) {
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error == std::errc() && end == text.data() + text.size()) return value;
  }
  FailHere(fmt::format("got {} (want a whole number in decimal)", Got(*node_)));
}

double YamlValue::AsDouble() const {
  const std::string& text = node_->scalar;
  double value = 0;
  if (IsScalar() && !node_->quoted && !HasLeadingZero(text)) {
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error == std::errc() && end == text.data() + text.size() && std::isfinite(value)) {
      return value;
    }
  }
  FailHere(fmt::format("got {} (want a finite number)", Got(*node_)));
}

std::vector<YamlValue> YamlValue::AsSequence() const {
  if (!IsSequence()) FailHere(fmt::format("got {} (want a list)", Got(*node_)));
  std::vector<YamlValue> values;
  for (size_t i = 0; i < node_->children.size(); ++i) {
    values.emplace_back(node_->children[i], file_, fmt::format("{}[{}]", path_, i));
  }
  return values;
}

YamlMap YamlValue::AsMap() const {
  if (!IsMap()) FailHere(fmt::format("got {} (want a map of keys and values)", Got(*node_)));
  return YamlMap(*this);
}

YamlMap::YamlMap(YamlValue value) : value_(std::move(value)) {}

bool YamlMap::Has(const std::string& key) const {
  const std::vector<std::string>& keys = value_.node_->keys;
  return std::find(keys.begin(), keys.end(), key) != keys.end();
}

std::optional<YamlValue> YamlMap::Get(const std::string& key) {
  if (std::find(known_.begin(), known_.end(), key) == known_.end()) known_.push_back(key);
  const std::vector<std::string>& keys = value_.node_->keys;
  auto place = std::find(keys.begin(), keys.end(), key);
  if (place == keys.end()) return std::nullopt;
  return YamlValue(value_.node_->children[static_cast<size_t>(place - keys.begin())], value_.file_,
                   Join(value_.path_, key));
}

YamlValue YamlMap::Require(const std::string& key) {
  std::optional<YamlValue> value = Get(key);
  if (!value) {
    // A key that is there but misspelt is the likely cause: name it.
    std::vector<std::string> strangers;
    for (const std::string& have : value_.node_->keys) {
      if (std::find(known_.begin(), known_.end(), have) == known_.end()) strangers.push_back(have);
    }
    std::string near = NearestWord(key, strangers);
    value_.FailHere(fmt::format("key '{}' is missing{}", key,
                                near.empty() ? "" : fmt::format(" ('{}' is there instead)", near)));
  }
  return *value;
}

std::string YamlMap::String(const std::string& key) { return Require(key).AsString(); }
std::string YamlMap::String(const std::string& key, const std::string& fallback) {
  std::optional<YamlValue> value = Get(key);
  return value ? value->AsString() : fallback;
}
double YamlMap::Double(const std::string& key) { return Require(key).AsDouble(); }
double YamlMap::Double(const std::string& key, double fallback) {
  std::optional<YamlValue> value = Get(key);
  return value ? value->AsDouble() : fallback;
}
int64_t YamlMap::Int(const std::string& key) { return Require(key).AsInt(); }
int64_t YamlMap::Int(const std::string& key, int64_t fallback) {
  std::optional<YamlValue> value = Get(key);
  return value ? value->AsInt() : fallback;
}
bool YamlMap::Bool(const std::string& key, bool fallback) {
  std::optional<YamlValue> value = Get(key);
  return value ? value->AsBool() : fallback;
}

std::vector<std::string> YamlMap::Keys() const { return value_.node_->keys; }

void YamlMap::Finish() const {
  const YamlNode& node = *value_.node_;
  for (size_t i = 0; i < node.keys.size(); ++i) {
    if (std::find(known_.begin(), known_.end(), node.keys[i]) != known_.end()) continue;
    std::string hint = DidYouMean(node.keys[i], known_);
    if (hint.empty()) hint = fmt::format(" (known here: {})", fmt::join(known_, ", "));
    FailAtLine(node.key_lines[i] > 0 ? value_.file_ : "override", node.key_lines[i],
               fmt::format("{}: unknown key{}", Join(value_.path_, node.keys[i]), hint));
  }
}

YamlDocument::YamlDocument(std::shared_ptr<const YamlNode> root, std::string name)
    : root_(std::move(root)), name_(std::move(name)) {}

YamlDocument YamlDocument::Load(const std::string& path) {
  std::error_code error;
  std::filesystem::file_status status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status)) {
    Fail(ErrorCode::kNotFound, fmt::format("yaml: {}: no such file; check the path", path));
  }
  if (!std::filesystem::is_regular_file(status)) {
    Fail(ErrorCode::kInvalidArgument, fmt::format("{}: not a regular file (want YAML)", path));
  }
  std::ifstream stream(path, std::ios::binary);
  // One byte over the cap is enough to know that it was passed.
  std::string text(kMaxYamlBytes + 1, '\0');
  stream.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (!stream.is_open() || stream.bad()) {
    Fail(ErrorCode::kIo, fmt::format("{}: cannot be read", path));
  }
  text.resize(static_cast<size_t>(stream.gcount()));
  return Parse(text, path);
}

YamlDocument YamlDocument::Parse(const std::string& text, const std::string& name) {
  return YamlDocument(ParseYaml(text, name), name);
}

YamlValue YamlDocument::root() const { return YamlValue(root_, name_, ""); }

void YamlDocument::Override(const std::string& dotted, const std::string& yaml_text) {
  std::vector<std::string> keys;
  std::istringstream parts(dotted);
  for (std::string key; std::getline(parts, key, '.');) keys.push_back(key);
  bool bad = keys.empty() || keys.size() > kMaxYamlDepth || dotted.back() == '.' ||
             std::find(keys.begin(), keys.end(), "") != keys.end();
  if (bad) {
    Fail(ErrorCode::kInvalidArgument,
         fmt::format("override '{}': want keys joined by dots, as in workload.rate=4", dotted));
  }
  NodePtr value = WithoutLines(ParseYaml(yaml_text, fmt::format("override {}", dotted)));
  root_ = Replaced(root_, keys, 0, value, dotted);
}

}  // namespace tandem
