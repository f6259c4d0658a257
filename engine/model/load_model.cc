#include "engine/model/load_model.h"

#include <fmt/format.h>

#include <filesystem>
#include <system_error>

#include "engine/base/error.h"
#include "engine/model/huggingface/directory.h"
#include "engine/model/huggingface/tokenizer_json.h"

namespace tandem {

std::shared_ptr<const Model> LoadModel(const std::string& path) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) {
    return LoadHuggingFace(OpenHuggingFaceFolder(path));
  }
  if (path.ends_with(".safetensors") || path.ends_with(".json")) {
    const std::string folder = std::filesystem::path(path).parent_path().string();
    Fail(ErrorCode::kModelFile,
         fmt::format("model: {}: one file of a model directory (want the directory: {})", path,
                     folder.empty() ? "." : folder));
  }
  return LoadGguf(path);
}

StoredVocabulary LoadModelVocabulary(const std::string& path) {
  std::error_code error;
  if (!std::filesystem::is_directory(path, error)) {
    return LoadVocabulary(path);
  }
  const HuggingFaceFiles files = OpenHuggingFaceFolder(path);
  StoredVocabulary stored;
  if (std::optional<VocabularyData> data = ReadHuggingFaceVocabulary(files, std::nullopt)) {
    stored.tokenizer = MakeTokenizer(*std::move(data), files.source);
  }
  stored.chat_template = ReadHuggingFaceChatTemplate(files);
  return stored;
}

}  // namespace tandem
