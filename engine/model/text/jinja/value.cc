#include "engine/model/text/jinja/value.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/base/error.h"

namespace tandem::jinja {

std::string_view TypeName(const Value& value) {
  struct Namer {
    std::string_view operator()(const Undefined&) const { return "undefined"; }
    std::string_view operator()(const None&) const { return "NoneType"; }
    std::string_view operator()(bool) const { return "bool"; }
    std::string_view operator()(int64_t) const { return "int"; }
    std::string_view operator()(double) const { return "float"; }
    std::string_view operator()(const std::shared_ptr<const std::string>&) const { return "str"; }
    std::string_view operator()(const std::shared_ptr<const ListData>& list) const {
      if (list->kind == ListKind::kRange) return "range";
      if (list->kind == ListKind::kView) return "dict's view";
      return list->kind == ListKind::kTuple ? "tuple" : "list";
    }
    std::string_view operator()(const std::shared_ptr<const DictData>&) const { return "dict"; }
    std::string_view operator()(const std::shared_ptr<NamespaceData>&) const { return "namespace"; }
    std::string_view operator()(const std::shared_ptr<const LoopData>&) const { return "loop"; }
    std::string_view operator()(const Function&) const { return "function"; }
  };
  return std::visit(Namer(), value.data());
}

void Runtime::Step(uint64_t steps) {
  steps_ += steps;
  if (steps_ > kMaxSteps) Fail(fmt::format("the template runs for over {} steps", kMaxSteps));
}

void Runtime::Make(uint64_t bytes) {
  // A single value beyond the budget is caught before it is made, without overflow.
  if (bytes > kMaxBytes - bytes_) {
    Fail(fmt::format("the template makes values of over {} MiB", kMaxBytes >> 20));
  }
  bytes_ += bytes;
  Step(bytes / 32);
}

Value Runtime::NewString(std::string text) {
  Make(text.size() + sizeof(std::string));
  return Value(std::make_shared<const std::string>(std::move(text)));
}

int Runtime::NestingDepth(const Value& value) const {
  if (value.name_space() != nullptr) FailUnsupported("a namespace as a part of another value");
  if (const ListData* list = value.list()) return list->depth;
  if (const DictData* dict = value.dict()) return dict->depth;
  return 0;
}

Value Runtime::NewList(std::vector<Value> items, ListKind kind) {
  Make(items.size() * sizeof(Value) + sizeof(ListData));
  int depth = 0;
  for (const Value& item : items) depth = std::max(depth, NestingDepth(item));
  if (depth >= kMaxValueDepth) Fail("the template nests values too deeply");
  return Value(std::make_shared<const ListData>(ListData{std::move(items), kind, depth + 1}));
}

Value Runtime::NewDict(std::vector<std::pair<Value, Value>> entries) {
  Make(entries.size() * 2 * sizeof(Value) + sizeof(DictData));
  int depth = 0;
  for (const auto& [key, value] : entries) depth = std::max(depth, NestingDepth(value));
  if (depth >= kMaxValueDepth) Fail("the template nests values too deeply");
  return Value(std::make_shared<const DictData>(DictData{std::move(entries), depth + 1}));
}

Value Runtime::NewUndefined(std::string what) {
  return Value(Undefined{std::make_shared<const std::string>(std::move(what))});
}

void Runtime::Fail(std::string_view message) const {
  tandem::Fail(ErrorCode::kInvalidArgument,
               fmt::format("chat template: line {}: {}", line, message));
}

void Runtime::FailUnsupported(std::string_view construct) const {
  tandem::Fail(ErrorCode::kUnsupported,
               fmt::format("chat template: line {}: {} is outside the part of Jinja that tandem "
                           "reads",
                           line, construct));
}

void Runtime::RequireDefined(const Value& value) const {
  if (const auto* undefined = std::get_if<Undefined>(&value.data())) {
    Fail(undefined->what ? *undefined->what : "a value is undefined");
  }
}

}  // namespace tandem::jinja
