#include "engine/model/text/sentencepiece_tokenizer.h"

#include <array>
#include <utility>

#include "engine/model/text/score_merge.h"
#include "engine/model/text/utf8.h"
#include "engine/model/text/vocabulary_tokenizer.h"

namespace tandem::text {
namespace {

constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  // U+2581

std::string Escaped(std::string_view plain, bool space_before) {
  std::string escaped(space_before ? kSpaceMark : "");
  for (char c : plain) {
    if (c == ' ') {
      escaped += kSpaceMark;
    } else {
      escaped += c;
    }
  }
  return escaped;
}

std::string Unescaped(std::string_view spelling) {
  std::string plain;
  for (size_t at = 0; at < spelling.size();) {
    const bool space = spelling.substr(at).starts_with(kSpaceMark);
    plain += space ? ' ' : spelling[at];
    at += space ? kSpaceMark.size() : 1;
  }
  return plain;
}

class SentencePieceTokenizer final : public VocabularyTokenizer {
 public:
  SentencePieceTokenizer(VocabularyData data, const std::string& source)
      : VocabularyTokenizer(std::move(data), source),
        by_merges_(!vocabulary().data().merges.empty()),
        prefix_(vocabulary().data().space_prefix.value_or(SpacePrefix::kEachPiece)) {
    if (by_merges_) merges_ = vocabulary().TakeMerges(source);
    IndexPieces();
  }

  bool adds_leading_space() const override { return prefix_ != SpacePrefix::kNone; }

 private:
  void EncodeStretches(std::span<const Stretch> stretches,
                       std::vector<int32_t>& ids) const override {
    bool space_before = prefix_ != SpacePrefix::kNone;
    for (const Stretch& stretch : stretches) {
      if (stretch.id >= 0) {
        ids.push_back(stretch.id);
        space_before = prefix_ == SpacePrefix::kEachPiece;
      } else {
        const std::string escaped =
            Escaped(stretch.text, space_before && !HasItsSpace(stretch.text));
        by_merges_ ? EncodeByMerges(escaped, ids) : EncodeByScores(escaped, ids);
        space_before = false;
      }
    }
  }
  std::string BytesOfPiece(const std::string& spelling) const override {
    return Unescaped(spelling);
  }
  bool AddsBosByDefault() const override { return true; }

  bool HasItsSpace(std::string_view plain) const {
    return vocabulary().data().space_prefix_where_missing &&
           (plain.starts_with(' ') || plain.starts_with(kSpaceMark));
  }

  // Plain text never becomes a control, unknown or byte token, even when spelled like one.
  static bool IsPiece(int32_t type) {
    return type != kTypeControl && type != kTypeUnknown && type != kTypeByte;
  }

  void IndexPieces() {
    const VocabularyData& data = vocabulary().data();
    byte_ids_.fill(-1);
    if (!by_merges_) pieces_.Reserve(data.tokens.size());
    for (int32_t id = 0; id < vocabulary().size(); ++id) {
      const std::string& spelling = data.tokens[id];
      const int32_t type = vocabulary().Type(id);
      if (type == kTypeByte) {
        if (const auto byte = ByteOfHex(spelling)) byte_ids_[*byte] = id;
      } else if (!by_merges_ && IsPiece(type) && !spelling.empty()) {
        pieces_.Add(spelling, {.id = id,
                               .score = data.scores.empty() ? 0.0f : data.scores[id],
                               .unused = type == kTypeUnused});
      }
    }
  }

  void EncodeByScores(std::string_view escaped, std::vector<int32_t>& ids) const {
    bool after_unknown = false;
    pieces_.Merge(escaped, [&](std::string_view symbol, int32_t id) {
      if (id >= 0) {
        ids.push_back(id);
        after_unknown = false;
      } else {
        after_unknown = AddUnknown(symbol, after_unknown, ids);
      }
    });
  }

  void EncodeByMerges(std::string_view escaped, std::vector<int32_t>& ids) const {
    std::vector<int32_t> symbols;
    std::vector<std::string_view> without_piece;  // in text order, as the -1 in `symbols`
    for (size_t at = 0; at < escaped.size();) {
      const std::string_view character = escaped.substr(at, NextUtf8(escaped, at).bytes);
      const int32_t id = vocabulary().IdOf(character);
      const bool known = id >= 0 && IsPiece(vocabulary().Type(id));
      symbols.push_back(known ? id : -1);
      if (!known) without_piece.push_back(character);
      at += character.size();
    }
    merges_.Merge(symbols);
    bool after_unknown = false;
    size_t next = 0;
    for (int32_t id : symbols) {
      if (id >= 0) {
        ids.push_back(id);
        after_unknown = false;
      } else {
        after_unknown = AddUnknown(without_piece[next++], after_unknown, ids);
      }
    }
  }

  // The bytes of a character without a piece; where the vocabulary lacks one of them, the unknown
  // token, once for a run of such characters. True when it took the unknown token.
  bool AddUnknown(std::string_view character, bool after_unknown, std::vector<int32_t>& ids) const {
    const size_t before = ids.size();
    for (char byte : character) {
      const int32_t id = byte_ids_[static_cast<uint8_t>(byte)];
      if (id < 0) {
        ids.resize(before);
        const std::optional<int32_t> unknown = vocabulary().data().unk;
        if (unknown && !after_unknown) ids.push_back(*unknown);
        return true;
      }
      ids.push_back(id);
    }
    return false;
  }

  bool by_merges_;
  SpacePrefix prefix_;
  MergeTable merges_;
  PieceTable pieces_;                    // empty when merging by rank
  std::array<int32_t, 256> byte_ids_{};  // -1: the vocabulary lacks this byte
};

}  // namespace

std::unique_ptr<Tokenizer> MakeSentencePieceTokenizer(VocabularyData data,
                                                      const std::string& source) {
  return std::make_unique<SentencePieceTokenizer>(std::move(data), source);
}

}  // namespace tandem::text
