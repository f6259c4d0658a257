// Fuzz target: any bytes as tokenizer.json; when it loads, text goes there and back.
#include <cstddef>
#include <cstdint>

#include "engine/base/error.h"
#include "engine/model/huggingface/tokenizer_json.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  tandem::HuggingFaceFiles files{.source = "folder"};
  files.content["tokenizer.json"] = std::as_bytes(std::span(data, size));
  try {
    auto vocabulary = tandem::ReadHuggingFaceVocabulary(files, std::nullopt);
    const auto tokenizer = tandem::MakeTokenizer(*std::move(vocabulary), files.source);
    const auto ids = tokenizer->Encode("The plan <s> caf\xC3\xA9 123\n<|end|> \xF0\x9F\x98\x80",
                                       {.parse_special = true, .add_bos = true});
    tandem::Detokenizer detokenizer(*tokenizer);
    for (const int32_t id : ids) {
      detokenizer.Add(id);
    }
    detokenizer.Finish();
  } catch (const tandem::Error&) {
    // A refusal is an answer.
  }
  return 0;
}
