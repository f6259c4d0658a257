#include "engine/model/text/pre_tokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <fmt/format.h>
#include <pcre2.h>

#include <algorithm>

#include "engine/base/check.h"
#include "engine/base/error.h"
#include "engine/base/suggest.h"

namespace tandem::text {
namespace {

// The expressions are written with \s and \S for the Unicode White_Space property; Translate
// spells these out, because PCRE2's own \s has U+180E besides.
constexpr std::string_view kSpaceClass = R"(\x{09}-\x{0D} \x{85}\x{A0}\x{1680}\x{2000}-\x{200A})"
                                         R"(\x{2028}\x{2029}\x{202F}\x{205F}\x{3000})";

// GPT-2's. A trailing "|\s+" would change nothing: what no branch matches is a piece too.
constexpr const char* kGpt2 =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S))";
constexpr const char* kLlama3 =
    R"((?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+)"
    R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kQwen2 =
    R"((?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+)"
    R"(|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kQwen35 =
    R"((?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+)"
    R"(|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kDeepSeek3Words =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+)"
    R"(| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
// Mistral's Tekken and OpenAI's o200k cut words where a capital follows a small letter.
constexpr const char* kTekken =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)"
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)"
    R"(|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kO200k =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)"
    R"((?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?)"
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)"
    R"((?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?)"
    R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kEachDigit = R"(\p{N})";
constexpr const char* kCoderCjk = R"([\x{4E00}-\x{9FA5}\x{0800}-\x{4E00}\x{AC00}-\x{D7FF}]+)";
constexpr const char* kDeepSeek3Cjk = R"([\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+)";

struct Family {
  std::vector<std::string> names;
  std::vector<const char*> expressions;
  bool ignore_merges = false;
  bool adds_bos_by_default = false;
  bool composes = false;
};

const std::vector<Family>& Families() {
  static const std::vector<Family> families = {
      {{"default"}, {R"([\p{P}\$\+<=>\^~\|]+)", kGpt2, R"(\p{N}+)", "[0-9][0-9][0-9]"}},
      {{"gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling", "exaone4",
        "gigachat", "mellum", "modern-bert"},
       {kGpt2}},
      {{"smollm", "starcoder", "refact", "codeshell", "command-r", "exaone", "minerva-7b",
        "mellum2"},
       {kEachDigit, kGpt2}},
      {{"llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"},
       {kLlama3},
       true,
       true},
      {{"dbrx", "smaug-bpe", "chatglm-bpe"}, {kLlama3}},
      {{"glm4"}, {kLlama3}, true},
      {{"qwen2"}, {kQwen2}, false, false, true},
      {{"deepseek-r1-qwen", "megrez", "stablelm2", "hunyuan", "kormo", "grok-2"}, {kQwen2}},
      {{"qwen35"}, {kQwen35}},
      {{"tekken"}, {kTekken}, true, true},
      {{"gpt-4o", "llama4"}, {kO200k}},
      {{"falcon"}, {R"([\p{P}\$\+<=>\^~\|`]+)", kGpt2, "[0-9][0-9][0-9]"}},
      {{"deepseek-coder"}, {R"([\r\n])", R"(\s?\p{L}+)", R"(\s?\p{P}+)", kCoderCjk, kEachDigit}},
      {{"deepseek-v3", "hunyuan-dense"}, {R"(\p{N}{1,3})", kDeepSeek3Cjk, kDeepSeek3Words}},
  };
  return families;
}

// How tokenizer.json files spell the expressions that differ from the table above.
struct Published {
  const char* name;
  std::vector<std::string> expressions;
};

const std::vector<Published>& PublishedExpressions() {
  static const std::string contractions = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
  static const std::string capitals =
      R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)";
  static const std::string capitals_only =
      R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)";
  static const std::string rest = R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  static const std::string rest_with_slash =
      R"(| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  static const std::string words = R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N})";
  static const std::vector<Published> published = {
      {"gpt-2", {"ByteLevel"}},
      {"smollm", {kEachDigit, "ByteLevel"}},
      {"llama-bpe", {contractions + words + "{1,3}" + rest}},
      {"qwen2", {contractions + words + rest}},
      {"qwen35",
       {contractions + R"(|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N})" +
        R"(| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"}},
      {"tekken", {capitals + "|" + capitals_only + R"(|\p{N})" + rest_with_slash}},
      {"gpt-4o",
       {capitals + contractions + "?|" + capitals_only + contractions + R"(?|\p{N}{1,3})" +
        rest_with_slash}},
  };
  return published;
}

// "\n" and "\r" spelled out, as some files have the characters themselves.
std::string WithoutLineBreaks(std::string_view expression) {
  std::string out;
  for (char c : expression) {
    if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else {
      out += c;
    }
  }
  return out;
}

// Spells out \s and \S. Knows as much of classes as the expressions above need.
std::string Translate(std::string_view expression) {
  std::string out;
  bool in_class = false;
  for (size_t i = 0; i < expression.size(); ++i) {
    const char c = expression[i];
    if (c == '\\' && i + 1 < expression.size()) {
      const char escaped = expression[++i];
      if (escaped == 's') {
        out += in_class ? std::string(kSpaceClass) : fmt::format("[{}]", kSpaceClass);
      } else if (escaped == 'S') {
        Check(!in_class, "pre-tokenizer: \\S inside a class");
        out += fmt::format("[^{}]", kSpaceClass);
      } else {
        out += c;
        out += escaped;
      }
      continue;
    }
    if (c == '[') in_class = true;
    if (c == ']') in_class = false;
    out += c;
  }
  return out;
}

struct CodeDeleter {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
};
struct MatchDataDeleter {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
};
struct MatchContextDeleter {
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
};
using MatchData = std::unique_ptr<pcre2_match_data, MatchDataDeleter>;
using MatchContext = std::unique_ptr<pcre2_match_context, MatchContextDeleter>;

// Generous for these expressions, whose backtracking is linear in the piece; a safeguard all the
// same, since text comes from clients.
constexpr uint32_t kMatchLimit = 200'000'000;
constexpr uint32_t kHeapLimitKib = 256 * 1024;

class Expression {
 public:
  explicit Expression(std::string_view pattern) {
    const std::string translated = Translate(pattern);
    int error = 0;
    PCRE2_SIZE offset = 0;
    code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                              PCRE2_UTF | PCRE2_UCP | PCRE2_DOLLAR_ENDONLY, &error, &offset,
                              nullptr));
    Check(code_ != nullptr, "pre-tokenizer: an expression of the table does not compile");
    // Without a JIT the interpreter runs: same results, slower.
    pcre2_jit_compile(code_.get(), PCRE2_JIT_COMPLETE);
  }

  // Appends the pieces of `piece`: matches, and what lies between them.
  void Split(std::string_view piece, pcre2_match_context* context,
             std::vector<std::string_view>& out) const {
    const MatchData data(pcre2_match_data_create(1, nullptr));
    Check(data != nullptr, "pre-tokenizer: out of memory");
    size_t done = 0;  // everything before it has been appended
    size_t from = 0;
    while (from < piece.size() && Match(piece, from, data.get(), context)) {
      const PCRE2_SIZE* span = pcre2_get_ovector_pointer(data.get());
      Check(span[1] > span[0], "pre-tokenizer: an expression of the table matched nothing");
      if (span[0] > done) out.push_back(piece.substr(done, span[0] - done));
      out.push_back(piece.substr(span[0], span[1] - span[0]));
      done = from = span[1];
    }
    if (done < piece.size()) out.push_back(piece.substr(done));
  }

 private:
  bool Match(std::string_view piece, size_t from, pcre2_match_data* data,
             pcre2_match_context* context) const {
    const auto run = [&](uint32_t options) {
      return pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(piece.data()), piece.size(),
                         from, options, data, context);
    };
    // The text was validated once; checking it again at every match would be quadratic.
    int result = run(PCRE2_NO_UTF_CHECK);
    if (result == PCRE2_ERROR_JIT_STACKLIMIT) result = run(PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT);
    if (result == PCRE2_ERROR_NOMATCH) return false;
    if (result < 0) {
      Fail(ErrorCode::kInvalidArgument,
           fmt::format("tokenizer: a piece of {} bytes is too hard to split into words (PCRE2 "
                       "error {}); send shorter text",
                       piece.size(), result));
    }
    return true;
  }

  std::unique_ptr<pcre2_code, CodeDeleter> code_;
};

class RegexPreTokenizer final : public PreTokenizer {
 public:
  explicit RegexPreTokenizer(const Family& family)
      : ignore_merges_(family.ignore_merges),
        adds_bos_(family.adds_bos_by_default),
        composes_(family.composes) {
    for (const char* pattern : family.expressions) expressions_.emplace_back(pattern);
  }

  std::vector<std::string_view> Split(std::string_view text) const override {
    std::vector<std::string_view> pieces;
    if (text.empty()) return pieces;
    const MatchContext context(pcre2_match_context_create(nullptr));
    Check(context != nullptr, "pre-tokenizer: out of memory");
    pcre2_set_match_limit(context.get(), kMatchLimit);
    pcre2_set_heap_limit(context.get(), kHeapLimitKib);
    pieces.push_back(text);
    for (const Expression& expression : expressions_) {
      std::vector<std::string_view> finer;
      for (std::string_view piece : pieces) expression.Split(piece, context.get(), finer);
      pieces = std::move(finer);
    }
    return pieces;
  }

  bool ignore_merges() const override { return ignore_merges_; }
  bool adds_bos_by_default() const override { return adds_bos_; }
  bool composes() const override { return composes_; }

 private:
  std::vector<Expression> expressions_;
  bool ignore_merges_;
  bool adds_bos_;
  bool composes_;
};

}  // namespace

std::unique_ptr<const PreTokenizer> PreTokenizer::Make(const std::string& name,
                                                       const std::string& source) {
  const std::string wanted = name.empty() ? "default" : name;
  std::vector<std::string> known;
  for (const Family& family : Families()) {
    if (std::find(family.names.begin(), family.names.end(), wanted) != family.names.end()) {
      return std::make_unique<RegexPreTokenizer>(family);
    }
    known.insert(known.end(), family.names.begin(), family.names.end());
  }
  Fail(ErrorCode::kUnsupported,
       fmt::format("tokenizer: {}: unknown pre-tokenizer '{}'{} (tokenizer.ggml.pre); tandem knows "
                   "{}",
                   source, name, DidYouMean(wanted, known), fmt::join(known, ", ")));
}

std::optional<std::string> PreTokenizerNamed(const std::vector<std::string>& expressions) {
  std::vector<std::string> wanted;
  for (const std::string& expression : expressions) {
    wanted.push_back(WithoutLineBreaks(expression));
  }
  for (const Published& published : PublishedExpressions()) {
    if (published.expressions == wanted) return published.name;
  }
  return std::nullopt;
}

}  // namespace tandem::text
