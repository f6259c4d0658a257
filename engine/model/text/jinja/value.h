// Values of the template language, and the Runtime that every operation on them is charged to.
//
// A Value is small and cheap to copy: strings, lists and dicts are shared and never change once
// made. The one mutable kind is the namespace; it can only be a variable's value, never an element
// of anything, so no cycles arise. Strings are valid UTF-8.
//
// Values and Runtime belong to one rendering, on one thread.
//
//   Runtime runtime;  Value greeting = runtime.NewString("Hi");
#pragma once

#include <cstddef>
#include <cstdint>
#include <ctime>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace tandem::jinja {

class Value;

struct None {};
// Something that does not exist; `what` says so in messages ("'x' is undefined").
struct Undefined {
  std::shared_ptr<const std::string> what;
};
struct Statement;
// A function named without a call: a macro, which the parsed template holds, or when null one that
// is built in.
struct Function {
  const Statement* macro = nullptr;
};

// Ranges, and the views that a dict's items() and the like are, hold their elements; they can do as
// little else as Python's can.
enum class ListKind { kList, kTuple, kRange, kView };

struct ListData {
  std::vector<Value> items;
  ListKind kind = ListKind::kList;
  int depth = 1;  // of nesting
};
struct DictData {
  std::vector<std::pair<Value, Value>> entries;  // in insertion order, keys unique
  int depth = 1;
};
struct NamespaceData {
  std::vector<std::pair<std::string, Value>> entries;
};
// The `loop` variable of one iteration.
struct LoopData {
  std::shared_ptr<const ListData> items;
  size_t index = 0;  // 0-based
};

class Value {
 public:
  using Data =
      std::variant<Undefined, None, bool, int64_t, double, std::shared_ptr<const std::string>,
                   std::shared_ptr<const ListData>, std::shared_ptr<const DictData>,
                   std::shared_ptr<NamespaceData>, std::shared_ptr<const LoopData>, Function>;

  Value() = default;
  Value(Data data) : data_(std::move(data)) {}  // NOLINT: a value is its data
  Value(bool b) : data_(b) {}                   // NOLINT
  Value(int64_t i) : data_(i) {}                // NOLINT
  Value(double d) : data_(d) {}                 // NOLINT
  Value(const void*) = delete;                  // a pointer would become a bool

  bool IsUndefined() const { return std::holds_alternative<Undefined>(data_); }
  bool IsNone() const { return std::holds_alternative<None>(data_); }
  bool IsString() const { return string() != nullptr; }
  // Null unless the value is of that kind.
  const bool* boolean() const { return std::get_if<bool>(&data_); }
  const int64_t* integer() const { return std::get_if<int64_t>(&data_); }
  const double* real() const { return std::get_if<double>(&data_); }
  const std::string* string() const { return Pointee<std::shared_ptr<const std::string>>(); }
  const ListData* list() const { return Pointee<std::shared_ptr<const ListData>>(); }
  const DictData* dict() const { return Pointee<std::shared_ptr<const DictData>>(); }
  const LoopData* loop() const { return Pointee<std::shared_ptr<const LoopData>>(); }
  NamespaceData* name_space() const {
    const auto* held = std::get_if<std::shared_ptr<NamespaceData>>(&data_);
    return held == nullptr ? nullptr : held->get();
  }
  const Data& data() const { return data_; }

 private:
  template <typename Pointer>
  const typename Pointer::element_type* Pointee() const {
    const auto* held = std::get_if<Pointer>(&data_);
    return held == nullptr ? nullptr : held->get();
  }

  Data data_;
};

// "str", "list", ...: Python's name of the value's type, for messages.
std::string_view TypeName(const Value& value);

// Counts what a rendering spends, and makes the values that cost memory. A template that spends
// too much, or does what its language forbids, fails with Error(kInvalidArgument) at `line`.
class Runtime {
 public:
  static constexpr uint64_t kMaxSteps = 10'000'000;           // operations, or 32 bytes looked at
  static constexpr uint64_t kMaxBytes = uint64_t{128} << 20;  // of values made, in all
  static constexpr uint64_t kMaxOutputBytes = uint64_t{16} << 20;
  static constexpr int kMaxValueDepth = 32;  // lists in lists

  int line = 1;                // of the template, being evaluated
  std::optional<std::tm> now;  // what strftime_now() tells, if it is there

  void Step(uint64_t steps = 1);
  // Before looking at or making `bytes` bytes of text.
  void Scan(size_t bytes) { Step(bytes / 32); }
  void Make(uint64_t bytes);

  Value NewString(std::string text);
  Value NewList(std::vector<Value> items, ListKind kind = ListKind::kList);
  Value NewDict(std::vector<std::pair<Value, Value>> entries);
  static Value NewUndefined(std::string what);

  [[noreturn]] void Fail(std::string_view message) const;
  [[noreturn]] void FailUnsupported(std::string_view construct) const;
  // Fails when `value` is undefined, as any use but printing and testing does.
  void RequireDefined(const Value& value) const;

 private:
  int NestingDepth(const Value& value) const;

  uint64_t steps_ = 0;
  uint64_t bytes_ = 0;
};

}  // namespace tandem::jinja
