// What is in a model's files, whether or not tandem can run them: `tandem models inspect` and
// `verify`. Loading stops at the first thing it does not know; a survey goes on and gathers them.
//
//   Survey survey = SurveyModel("models/some.gguf");
//   if (survey.model == nullptr) for (const std::string& why : survey.lacks) ...
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "engine/model/model.h"

namespace tandem {

struct SurveyedTensor {
  std::string name;  // as the file has it
  std::string type;  // "Q5_K", "F8_E4M3": may be one that tandem does not read
  uint64_t bytes = 0;
  TensorView view;      // of all its elements as rows; no data when it cannot be read
  std::string problem;  // why it lies wrongly in the file; "" when it does not
};

struct Survey {
  std::string source;
  std::string format;                                   // "gguf" or "safetensors"
  std::vector<std::pair<std::string, uint64_t>> files;  // paths and sizes
  std::string architecture;                             // as the file has it; "" when it has none
  nlohmann::json facts = nlohmann::json::object();      // what the file says of shape and rope
  nlohmann::json tokenizer = nlohmann::json::object();  // and of its vocabulary
  std::vector<SurveyedTensor> tensors;
  uint64_t missing_bytes = 0;          // that tensors have beyond the ends of their files
  std::vector<std::string> lacks;      // what keeps tandem from running it, or from chatting
  std::shared_ptr<const Model> model;  // null when it does not load
  std::shared_ptr<const void> memory;  // keeps the views alive
  size_t damaged() const;              // tensors that lie wrongly in their file
};

// Throws Error(kModelFile) for what is no model at all: nothing there, no GGUF file, no
// folder with a config.json.
Survey SurveyModel(const std::string& path);

// {source, format, files [{path, bytes}], architecture, facts, tokenizer, tensor_types [{type,
// count, bytes, readable}], lacks, supported, model (null, or as Describe in inspect.h)}.
nlohmann::json DescribeSurvey(const Survey& survey);

}  // namespace tandem
