// Text to token ids and back. Two kinds: byte-level BPE ("gpt2": words cut by the pre-tokenizer
// that the model file names, then merges) and SentencePiece's ("llama": the whole text, spaces
// spelled U+2581, pieces merged by score, unknown characters as byte tokens).
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
  bool add_bos = false;        // put BOS first, when the model has one and the ids lack it
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
  // Whether Encode puts a space before the text, which decoding the whole text has to drop again.
  virtual bool adds_leading_space() const { return false; }
};

// Where a stream of ids stands: an answer to a chat is a text of its own, a completion goes on from
// its prompt. It matters to tokenizers that put a space before a text.
enum class TextStart { kContinues, kBegins };

// Turns a stream of ids into text that never ends inside a UTF-8 code point.
class Detokenizer {
 public:
  // With kBegins, the space that Encode put before the text is left out.
  explicit Detokenizer(const Tokenizer& tokenizer, TextStart start = TextStart::kContinues)
      : tokenizer_(&tokenizer),
        drops_space_(start == TextStart::kBegins && tokenizer.adds_leading_space()) {}
  // Text that became complete with this token; may be empty.
  std::string Add(int32_t id);
  // What is left at the end: "", or U+FFFD for a code point that never became whole. Bytes that
  // are no valid UTF-8 come out as U+FFFD in Add as well.
  std::string Finish();

 private:
  const Tokenizer* tokenizer_;
  bool drops_space_;  // until the first text
  std::string pending_;
};

// Which stretches of text get the space that SentencePiece puts before a text. A text is cut into
// stretches by the special tokens in it.
enum class SpacePrefix {
  kNone,
  kFirst,      // the text's first stretch, when no special token is before it
  kEachPiece,  // every stretch that begins the text or follows a special token
};

// What a model file says about its vocabulary.
struct VocabularyData {
  std::string model;  // tokenizer.ggml.model: "gpt2" or "llama"
  std::string pre;    // "gpt2": tokenizer.ggml.pre: "smollm", "llama-bpe", "default", ...
  std::vector<std::string> tokens;  // an empty one is a hole: never matched
  // ggml's token types: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte. Empty:
  // all are normal.
  std::vector<int32_t> types;
  std::vector<float> scores;        // "llama": the pair whose piece scores highest merges first
  std::vector<std::string> merges;  // "left right"; "llama" merges by these when there are any
  std::optional<int32_t> bos, eos, eot, eom, unk, pad;
  // tokenizer.ggml.add_bos_token. Leave it empty when the file has no such key: what holds then
  // depends on the family (SentencePiece's, Llama 3's and Tekken add BOS, the others do not).
  std::optional<bool> add_bos;
  std::optional<SpacePrefix> space_prefix;  // "llama"; empty: kEachPiece
  // "llama": a stretch that begins with a space as it is gets no other, as tokenizer.json's
  // Metaspace has it.
  bool space_prefix_where_missing = false;
  // "gpt2": whether a word that is a token skips the merges; empty: what the pre-tokenizer says.
  std::optional<bool> ignore_merges;
  // "gpt2": whether plain text is put into Unicode's form NFC first; empty: what the pre-tokenizer
  // says.
  std::optional<bool> composes;
  // Added tokens that take the white space before, or after, them in the text with them.
  std::vector<int32_t> strip_left, strip_right;
};

// Throws Error(kUnsupported) naming a tokenizer model or pre-tokenizer that tandem does not know,
// and Error(kModelFile) for a vocabulary that contradicts itself: no tokens, a token twice, merges
// of unknown tokens, ids out of range, scores that are no numbers, or another number of types or
// scores than of tokens. `source` names the file.
std::unique_ptr<Tokenizer> MakeTokenizer(VocabularyData data, const std::string& source);

}  // namespace tandem
