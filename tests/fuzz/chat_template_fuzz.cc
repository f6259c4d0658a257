// libFuzzer entry: any bytes as a chat template, parsed and rendered over a short conversation.
// Errors are fine; crashes, hangs and runaway memory are what it looks for.
//
//   cmake --preset fuzz && cmake --build --preset fuzz --target chat_template_fuzz
//   build/fuzz/bin/chat_template_fuzz -max_len=4096 -timeout=10
//
// A corpus: the templates and snippets of tests/golden/chat_template/cases.json, one a file.

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
