// Fuzz target: one file of a model directory. The first byte says which: 's' the weights, 'i' the
// index, 'c' config.json; the rest of the directory is a tiny model that loads.
#include <cstddef>
#include <cstdint>

#include "tests/model/gguf_exercise.h"
#include "tests/model/huggingface/safetensors_builder.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const tandem::FolderBuilder folder = tandem::TinyLlamaFolder();
  if (size == 0) {
    return 0;
  }
  tandem::HuggingFaceFiles files = folder.Files();
  const auto bytes = std::as_bytes(std::span(data, size)).subspan(1);
  switch (data[0]) {
    case 's':
      files.content["model.safetensors"] = bytes;
      break;
    case 'i':
      files.content["model.safetensors.index.json"] = bytes;
      break;
    default:
      files.content["config.json"] = bytes;
  }
  tandem::ReadWhatLoads([&] { return tandem::LoadHuggingFace(std::move(files)); });
  return 0;
}
