// The pre-tokenizer: cuts text into the words that byte-pair encoding then works on, one by one.
// A GGUF file names it (tokenizer.ggml.pre); a table here gives each name its regular expressions.
// They apply in turn: each cuts the pieces that the ones before it left into what it matches and
// what lies between matches, and sees nothing outside the piece.
// Sources of the expressions: the tokenizer.json files of the models, as read by llama.cpp.
//
// Immutable; any thread may call Split.
//
//   auto pre = PreTokenizer::Make("smollm", "model.gguf");
//   for (std::string_view word : pre->Split("abc 42")) ...   // "abc", " ", "4", "2"
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tandem::text {

class PreTokenizer {
 public:
  // Throws Error(kUnsupported) for a name that is not in the table. An empty name, from a file
  // that has none, means "default". `source` is for the message.
  static std::unique_ptr<const PreTokenizer> Make(const std::string& name,
                                                  const std::string& source);
  virtual ~PreTokenizer() = default;

  // Views into `text`, in order, that cover it. `text` must be valid UTF-8. Throws
  // Error(kInvalidArgument) when an expression exceeds its match limit on this text.
  virtual std::vector<std::string_view> Split(std::string_view text) const = 0;

  // A word that is a token as it stands becomes that token, whatever the merges say.
  virtual bool ignore_merges() const = 0;
  // What models of this kind do about BOS when the file does not say.
  virtual bool adds_bos_by_default() const = 0;
  // Whether text was put into Unicode's form NFC before models of this kind saw it. GGUF files do
  // not say; the models' own tokenizer.json does.
  virtual bool composes() const = 0;
};

// The name of the pre-tokenizer that a tokenizer.json describes by its expressions, in the order
// in which they apply and spelled as there; GPT-2's own, which such files leave to the step
// ByteLevel (use_regex), is "ByteLevel" here, and Digits (individual_digits) is "\p{N}". Nothing
// for expressions that tandem does not know.
std::optional<std::string> PreTokenizerNamed(const std::vector<std::string>& expressions);

}  // namespace tandem::text
