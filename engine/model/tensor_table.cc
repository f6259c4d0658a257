#include "engine/model/tensor_table.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/base/error.h"
#include "engine/model/gguf.h"

namespace tandem {

TensorTable::TensorTable(std::string format, std::string source, Spelling spell)
    : format_(std::move(format)), source_(std::move(source)), spell_(std::move(spell)) {}

std::string TensorTable::Spell(std::string_view name) const {
  return spell_ ? spell_(name) : std::string(name);
}

void TensorTable::Refuse(std::string_view name, const std::string& problem) const {
  Fail(ErrorCode::kModelFile,
       fmt::format("{}: {}: tensor {}: {}", format_, source_, QuoteForMessage(name), problem));
}

void TensorTable::Add(std::string_view name, const TensorView& view) {
  if (!views_.emplace(name, view).second) {
    Refuse(name, "the name appears twice");
  }
}

void TensorTable::Drop(std::string_view name) { views_.erase(Spell(name)); }

bool TensorTable::Has(std::string_view name) const { return views_.contains(Spell(name)); }

uint32_t TensorTable::RowsOf(std::string_view name) const {
  const auto it = views_.find(Spell(name));
  return it == views_.end()
             ? 0
             : static_cast<uint32_t>(std::min<uint64_t>(it->second.rows, UINT32_MAX));
}

TensorView TensorTable::Take(std::string_view name, uint64_t rows, uint64_t cols) {
  const std::string spelled = Spell(name);
  const auto it = views_.find(spelled);
  if (it == views_.end()) {
    Refuse(spelled, fmt::format("missing (want {} x {})", rows, cols));
  }
  const TensorView view = it->second;
  if (view.cols != cols || view.rows != rows) {
    Refuse(spelled,
           fmt::format("has {} rows of {} (want {} rows of {})", view.rows, view.cols, rows, cols));
  }
  views_.erase(it);
  return view;
}

TensorView TensorTable::TakeVector(std::string_view name, uint64_t width) {
  const TensorView view = Take(name, 1, width);
  if (view.type != DType::kF32) {
    Fail(ErrorCode::kUnsupported,
         fmt::format("{}: {}: tensor {}: vector of type {} (want F32)", format_, source_,
                     QuoteForMessage(Spell(name)), ToString(view.type)));
  }
  return view;
}

void TensorTable::RefuseRest(const std::function<const char*(std::string_view)>& reason) const {
  if (views_.empty()) {
    return;
  }
  const std::string& name = views_.begin()->first;
  Fail(ErrorCode::kUnsupported,
       fmt::format("{}: {}: tensor {}: {}", format_, source_, QuoteForMessage(name), reason(name)));
}

}  // namespace tandem
