// yaml-cpp's parser drives TreeBuilder, which refuses what the project does not allow and builds
// the tree.
#include <fmt/format.h>
#include <yaml-cpp/anchor.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <sstream>
#include <utility>

#include "engine/base/error.h"
#include "engine/rig/yaml_node.h"

namespace tandem {
namespace {

using NodePtr = std::shared_ptr<const YamlNode>;

// Builds the tree of one document from the parser's events.
class TreeBuilder final : public YAML::EventHandler {
 public:
  explicit TreeBuilder(std::string file) : file_(std::move(file)) {}

  NodePtr root() const { return root_; }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    auto node = MakeNode(mark, anchor, "?");
    node->kind = YamlNode::Kind::kNull;
    Add(node);
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override { RefuseAlias(mark); }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    auto node = MakeNode(mark, anchor, tag);
    node->kind = YamlNode::Kind::kScalar;
    node->quoted = tag == "!";
    node->scalar = value;
    Add(node);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    Open(mark, tag, anchor, YamlNode::Kind::kSequence);
  }
  void OnSequenceEnd() override { Close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    Open(mark, tag, anchor, YamlNode::Kind::kMap);
  }
  void OnMapEnd() override { Close(); }

 private:
  struct Frame {
    std::shared_ptr<YamlNode> node;
    bool expects_key = true;  // of a map
  };

  [[noreturn]] void RefuseAlias(const YAML::Mark& mark) const {
    FailAtLine(file_, mark.line + 1,
               "YAML anchors and aliases are not accepted: write the value out");
  }

  std::shared_ptr<YamlNode> MakeNode(const YAML::Mark& mark, YAML::anchor_t anchor,
                                     const std::string& tag) const {
    if (anchor != YAML::NullAnchor) RefuseAlias(mark);
    if (!tag.empty() && tag != "?" && tag != "!") {
      FailAtLine(file_, mark.line + 1, fmt::format("YAML tag '{}' is not accepted", tag));
    }
    auto node = std::make_shared<YamlNode>();
    node->line = mark.line + 1;
    return node;
  }

  void Open(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
            YamlNode::Kind kind) {
    auto node = MakeNode(mark, anchor, tag);
    node->kind = kind;
    if (stack_.size() >= kMaxYamlDepth) {
      FailAtLine(file_, node->line, fmt::format("nested deeper than {} levels", kMaxYamlDepth));
    }
    Add(node);
    stack_.push_back(Frame{node, true});
  }

  void Close() { stack_.pop_back(); }

  void Add(const std::shared_ptr<YamlNode>& node) {
    if (stack_.empty()) {
      root_ = node;
      return;
    }
    Frame& frame = stack_.back();
    if (frame.node->kind == YamlNode::Kind::kMap && frame.expects_key) {
      AddKey(frame, *node);
      return;
    }
    frame.node->children.push_back(node);
    frame.expects_key = true;
  }

  void AddKey(Frame& frame, const YamlNode& key) {
    if (key.kind != YamlNode::Kind::kScalar)
      FailAtLine(file_, key.line, "a key must be a plain word");
    std::vector<std::string>& keys = frame.node->keys;
    auto twin = std::find(keys.begin(), keys.end(), key.scalar);
    if (twin != keys.end()) {
      int line = frame.node->key_lines[static_cast<size_t>(twin - keys.begin())];
      FailAtLine(file_, key.line,
                 fmt::format("key '{}' is given twice (first in line {})", key.scalar, line));
    }
    keys.push_back(key.scalar);
    frame.node->key_lines.push_back(key.line);
    frame.expects_key = false;
  }

  std::string file_;
  NodePtr root_;
  std::vector<Frame> stack_;
};

// yaml-cpp takes some control characters for the end of its input and would cut the file there.
void RefuseControlCharacters(const std::string& text, const std::string& name) {
  int line = 1;
  for (char c : text) {
    unsigned char byte = static_cast<unsigned char>(c);
    if (byte < 0x20 && c != '\n' && c != '\t' && c != '\r') {
      FailAtLine(name, line,
                 fmt::format("control character 0x{:02x}: this is not a text file", byte));
    }
    line += c == '\n' ? 1 : 0;
  }
}

}  // namespace

void FailAtLine(const std::string& file, int line, const std::string& message) {
  Fail(ErrorCode::kInvalidArgument, line > 0 ? fmt::format("{}:{}: {}", file, line, message)
                                             : fmt::format("{}: {}", file, message));
}

std::shared_ptr<const YamlNode> ParseYaml(const std::string& text, const std::string& name) {
  if (text.size() > kMaxYamlBytes) {
    FailAtLine(name, 0,
               fmt::format("{} bytes of YAML (want at most {})", text.size(), kMaxYamlBytes));
  }
  RefuseControlCharacters(text, name);
  try {
    std::istringstream stream(text);
    YAML::Parser parser(stream);
    TreeBuilder builder(name);
    bool any = parser.HandleNextDocument(builder);
    NodePtr root = builder.root();
    TreeBuilder second(name);
    if (any && parser.HandleNextDocument(second)) {
      FailAtLine(name, second.root() ? second.root()->line : 0,
                 "a second YAML document (want one)");
    }
    return root ? root : std::make_shared<YamlNode>();
  } catch (const YAML::Exception& error) {
    FailAtLine(name, error.mark.line + 1, fmt::format("not valid YAML: {}", error.msg));
  }
}

}  // namespace tandem
