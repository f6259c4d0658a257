#include "engine/model/text/jinja/format.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <cmath>

#include "engine/model/text/utf8.h"

namespace tandem::jinja {
namespace {

// Python's repr of a float: the shortest digits that read back the same, in plain notation for
// exponents from -4 to 15. `infinity` and `nan` are spelled as the caller's format wants.
std::string FormatFloat(double value, std::string_view infinity, std::string_view nan) {
  if (std::isnan(value)) return std::string(nan);
  if (std::isinf(value)) return fmt::format("{}{}", value < 0 ? "-" : "", infinity);
  std::array<char, 40> buffer;
  const auto result = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value,
                                    std::chars_format::scientific);
  const std::string scientific(buffer.data(), result.ptr);
  const size_t e = scientific.find('e');
  const int exponent = std::stoi(scientific.substr(e + 1));
  if (exponent < -4 || exponent >= 16) return scientific;
  // Without a precision this gives the shortest digits again, but never the ".0".
  const auto plain =
      std::to_chars(buffer.data(), buffer.data() + buffer.size(), value, std::chars_format::fixed);
  std::string out(buffer.data(), plain.ptr);
  if (out.find('.') == std::string::npos) out += ".0";
  return out;
}

// Characters that repr shows as they are. Beyond ASCII that takes the Unicode database, so only
// what is certain is said; the rest is refused.
enum class Printable { kYes, kNo, kUnknown };

Printable IsPrintable(uint32_t c) {
  if (c < 0x7F) return c >= 0x20 ? Printable::kYes : Printable::kNo;
  if (c < 0xA1 || c == 0xAD || text::IsPythonSpace(c)) return Printable::kNo;
  if (c < 0x370) return Printable::kYes;                     // Latin, IPA, combining marks
  if (c >= 0x400 && c <= 0x52F) return Printable::kYes;      // Cyrillic
  if (c >= 0x2010 && c <= 0x2027) return Printable::kYes;    // dashes, quotes
  if (c >= 0x3041 && c <= 0x3096) return Printable::kYes;    // Hiragana
  if (c >= 0x30A0 && c <= 0x30FF) return Printable::kYes;    // Katakana
  if (c >= 0x4E00 && c <= 0x9FA5) return Printable::kYes;    // CJK
  if (c >= 0xAC00 && c <= 0xD7A3) return Printable::kYes;    // Hangul
  if (c >= 0x1F600 && c <= 0x1F64F) return Printable::kYes;  // emoticons
  return Printable::kUnknown;
}

class Writer {
 public:
  explicit Writer(Runtime& runtime) : runtime_(runtime) {}

  void Repr(const Value& value) {
    runtime_.Step();
    if (const std::string* string = value.string()) {
      ReprString(*string);
    } else if (const ListData* list = value.list()) {
      ReprList(*list);
    } else if (const DictData* dict = value.dict()) {
      out_ += '{';
      for (size_t i = 0; i < dict->entries.size(); ++i) {
        if (i > 0) out_ += ", ";
        Repr(dict->entries[i].first);
        out_ += ": ";
        Repr(dict->entries[i].second);
      }
      out_ += '}';
    } else if (value.IsUndefined()) {
      out_ += "Undefined";
    } else {
      Scalar(value);
    }
  }

  void Scalar(const Value& value) {
    if (value.IsNone()) {
      out_ += "None";
    } else if (const bool* boolean = value.boolean()) {
      out_ += *boolean ? "True" : "False";
    } else if (const int64_t* integer = value.integer()) {
      out_ += std::to_string(*integer);
    } else if (const double* real = value.real()) {
      out_ += FormatFloat(*real, "inf", "nan");
    } else {
      runtime_.FailUnsupported(fmt::format("printing a {}", TypeName(value)));
    }
  }

  void Json(const Value& value, std::optional<int64_t> indent, int64_t level) {
    runtime_.Step();
    if (const std::string* string = value.string()) {
      JsonString(*string);
    } else if (value.IsNone()) {
      out_ += "null";
    } else if (const bool* boolean = value.boolean()) {
      out_ += *boolean ? "true" : "false";
    } else if (const double* real = value.real()) {
      out_ += FormatFloat(*real, "Infinity", "NaN");
    } else if (value.integer() != nullptr) {
      Scalar(value);
    } else if (const ListData* list = value.list(); list && list->kind <= ListKind::kTuple) {
      out_ += '[';
      for (size_t i = 0; i < list->items.size(); ++i) {
        JsonSeparator(i, indent, level + 1);
        Json(list->items[i], indent, level + 1);
      }
      if (!list->items.empty()) JsonLineBreak(indent, level);
      out_ += ']';
    } else if (const DictData* dict = value.dict()) {
      out_ += '{';
      for (size_t i = 0; i < dict->entries.size(); ++i) {
        JsonSeparator(i, indent, level + 1);
        JsonKey(dict->entries[i].first);
        out_ += ": ";
        Json(dict->entries[i].second, indent, level + 1);
      }
      if (!dict->entries.empty()) JsonLineBreak(indent, level);
      out_ += '}';
    } else {
      runtime_.RequireDefined(value);
      runtime_.Fail(fmt::format("a {} cannot be written as JSON", TypeName(value)));
    }
  }

  std::string Take() { return std::move(out_); }

 private:
  void ReprList(const ListData& list) {
    if (list.kind == ListKind::kRange) runtime_.FailUnsupported("printing a range");
    if (list.kind == ListKind::kView) runtime_.FailUnsupported("printing a dict's view");
    const bool tuple = list.kind == ListKind::kTuple;
    out_ += tuple ? '(' : '[';
    for (size_t i = 0; i < list.items.size(); ++i) {
      if (i > 0) out_ += ", ";
      Repr(list.items[i]);
    }
    if (tuple && list.items.size() == 1) out_ += ',';
    out_ += tuple ? ')' : ']';
  }

  void ReprString(const std::string& string) {
    runtime_.Make(string.size());
    const bool double_quotes =
        string.find('\'') != std::string::npos && string.find('"') == std::string::npos;
    const char quote = double_quotes ? '"' : '\'';
    out_ += quote;
    for (size_t at = 0; at < string.size();) {
      const text::Utf8Step step = text::NextUtf8(string, at);
      ReprCharacter(step.code_point, quote, std::string_view(string).substr(at, step.bytes));
      at += step.bytes;
    }
    out_ += quote;
  }

  void ReprCharacter(uint32_t c, char quote, std::string_view utf8) {
    if (c == '\\' || c == static_cast<uint32_t>(quote)) {
      out_ += '\\';
      out_ += static_cast<char>(c);
    } else if (c == '\n') {
      out_ += "\\n";
    } else if (c == '\r') {
      out_ += "\\r";
    } else if (c == '\t') {
      out_ += "\\t";
    } else {
      switch (IsPrintable(c)) {
        case Printable::kYes:
          out_ += utf8;
          break;
        case Printable::kNo:
          out_ += c < 0x100 ? fmt::format("\\x{:02x}", c) : fmt::format("\\u{:04x}", c);
          break;
        case Printable::kUnknown:
          runtime_.FailUnsupported(fmt::format("printing a list or dict that holds U+{:04X}", c));
      }
    }
  }

  void JsonString(const std::string& string) {
    runtime_.Make(string.size());
    out_ += '"';
    for (const char c : string) {
      switch (c) {
        case '"':
          out_ += "\\\"";
          break;
        case '\\':
          out_ += "\\\\";
          break;
        case '\n':
          out_ += "\\n";
          break;
        case '\r':
          out_ += "\\r";
          break;
        case '\t':
          out_ += "\\t";
          break;
        case '\b':
          out_ += "\\b";
          break;
        case '\f':
          out_ += "\\f";
          break;
        default:
          if (static_cast<unsigned char>(c) < 0x20) {
            out_ += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
          } else {
            out_ += c;
          }
      }
    }
    out_ += '"';
  }

  void JsonKey(const Value& key) {
    if (key.IsString()) return Json(key, std::nullopt, 0);
    out_ += '"';
    Json(key, std::nullopt, 0);
    out_ += '"';
  }

  void JsonSeparator(size_t index, std::optional<int64_t> indent, int64_t level) {
    if (index > 0) out_ += indent ? "," : ", ";
    JsonLineBreak(indent, level);
  }

  void JsonLineBreak(std::optional<int64_t> indent, int64_t level) {
    if (!indent) return;
    const auto spaces = static_cast<size_t>(*indent * level);
    runtime_.Make(spaces);
    out_ += '\n';
    out_.append(spaces, ' ');
  }

  Runtime& runtime_;
  std::string out_;
};

}  // namespace

std::string ToText(Runtime& runtime, const Value& value) {
  if (const std::string* string = value.string()) return *string;
  if (value.IsUndefined()) return "";
  Writer writer(runtime);
  writer.Repr(value);
  return writer.Take();
}

std::string ToJson(Runtime& runtime, const Value& value, std::optional<int64_t> indent) {
  constexpr int64_t kMaxIndent = 64;
  if (indent && (*indent < 0 || *indent > kMaxIndent)) {
    runtime.FailUnsupported(fmt::format("tojson(indent={})", *indent));
  }
  Writer writer(runtime);
  writer.Json(value, indent, 0);
  return writer.Take();
}

}  // namespace tandem::jinja
