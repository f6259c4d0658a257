// Text to token ids and back: byte-level BPE with the pre-tokenizer the model file names.
//
// A Tokenizer is immutable; any thread may use it. A Detokenizer belongs to one stream.
//
//   std::vector<int32_t> ids = tok.Encode("Hello", {.parse_special = true});
//   Detokenizer out(tok);  std::string text = out.Add(id);  // whole code points only
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tandem {

struct EncodeOptions {
  bool parse_special = false;  // "<|im_start|>" in the text becomes that token
  bool add_bos = false;        // put BOS first, when the model has one
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  virtual uint32_t vocab_size() const = 0;
  // Invalid UTF-8 is read as U+FFFD. Bytes that the vocabulary has no token for (SmolLM2 lacks 21,
  // among them a few control characters) are left out, as the models' own tokenizers do. User-
  // defined tokens are found in the text always, control tokens with parse_special only.
  virtual std::vector<int32_t> Encode(std::string_view text,
                                      const EncodeOptions& options) const = 0;
  // Raw bytes of a token: may be part of a code point. Special tokens give "" unless asked for.
  // For this and the functions below, an id outside the vocabulary is a bug of the caller.
  virtual std::string TokenBytes(int32_t id, bool render_special = false) const = 0;
  // The token's own spelling in the vocabulary, for messages and logprobs.
  virtual std::string TokenText(int32_t id) const = 0;

  virtual std::optional<int32_t> bos() const = 0;
  virtual std::optional<int32_t> eos() const = 0;
  virtual bool IsEndOfGeneration(int32_t id) const = 0;  // EOS, EOT and their kind
  virtual bool IsSpecial(int32_t id) const = 0;          // control or unknown, never in answers
  virtual bool adds_bos() const = 0;                     // whether prompts should start with BOS
};

// Turns a stream of ids into text that never ends inside a UTF-8 code point.
class Detokenizer {
 public:
  explicit Detokenizer(const Tokenizer& tokenizer) : tokenizer_(&tokenizer) {}
  // Text that became complete with this token; may be empty.
  std::string Add(int32_t id);
  // What is left at the end: "", or U+FFFD for a code point that never became whole. Bytes that
  // are no valid UTF-8 come out as U+FFFD in Add as well.
  std::string Finish();

 private:
  const Tokenizer* tokenizer_;
  std::string pending_;
};

// What a model file says about its vocabulary; gguf.cc fills it.
struct VocabularyData {
  std::string model;  // tokenizer.ggml.model: "gpt2"
  std::string pre;    // tokenizer.ggml.pre: "smollm", "llama-bpe", "default", ...
  std::vector<std::string> tokens;
  std::vector<int32_t> types;  // ggml's token types: 1 normal, 2 unknown, 3 control, 4 user, ...
  std::vector<float> scores;
  std::vector<std::string> merges;
  std::optional<int32_t> bos, eos, eot, unk, pad;
  // tokenizer.ggml.add_bos_token. Leave it empty when the file has no such key: what holds then
  // depends on the pre-tokenizer (Llama 3's adds BOS, the others do not).
  std::optional<bool> add_bos;
};

// Throws Error(kUnsupported) naming a tokenizer model or pre-tokenizer that tandem does not know,
// and Error(kModelFile) for a vocabulary that contradicts itself: no tokens, a token twice, merges
// of unknown tokens, ids out of range, or another number of types than of tokens. `source` names
// the file.
std::unique_ptr<Tokenizer> MakeTokenizer(VocabularyData data, const std::string& source);

}  // namespace tandem
