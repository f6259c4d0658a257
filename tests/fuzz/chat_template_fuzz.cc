// Fuzz target: any bytes as a chat template, parsed and rendered over a short conversation. Errors
// are fine; crashes, hangs and runaway memory are what it looks for.
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "engine/base/error.h"
#include "engine/model/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::vector<tandem::ChatMessage> messages = {
      {"system", "Be brief."}, {"user", "Hi \xC3\xA4"}, {"assistant", ""}, {"user", "a, b"}};
  try {
    const std::string_view source(reinterpret_cast<const char*>(data), size);
    tandem::ChatTemplate::Parse(source).Render(messages, {"<s>", "</s>", true});
  } catch (const tandem::Error&) {
    // A refusal is an answer.
  }
  return 0;
}
