#include "engine/model/survey.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <system_error>

#include "engine/base/error.h"
#include "engine/model/arch/architecture.h"
#include "engine/model/chat_template.h"
#include "engine/model/gguf_load.h"
#include "engine/model/gguf_split.h"
#include "engine/model/huggingface/directory.h"
#include "engine/model/inspect.h"
#include "engine/model/load_model.h"
#include "engine/model/mapped_file.h"

namespace tandem {
namespace {

using nlohmann::json;

// Keys of a GGUF file that say what shape a model has, after the architecture's name.
constexpr const char* kGgufKeys[] = {"block_count",
                                     "context_length",
                                     "embedding_length",
                                     "feed_forward_length",
                                     "attention.head_count",
                                     "attention.head_count_kv",
                                     "attention.key_length",
                                     "attention.value_length",
                                     "attention.sliding_window",
                                     "attention.layer_norm_rms_epsilon",
                                     "rope.dimension_count",
                                     "rope.freq_base",
                                     "rope.scaling.type",
                                     "rope.scaling.factor",
                                     "rope.scaling.original_context_length",
                                     "vocab_size",
                                     "expert_count",
                                     "expert_used_count"};

json ScalarOf(const GgufMetadata& metadata, const std::string& key) {
  const GgufValue* value = metadata.Find(key);
  if (value == nullptr) {
    return nullptr;
  }
  switch (value->type) {
    case GgufType::kString:
      return *metadata.FindString(key);
    case GgufType::kBool:
      return value->payload[0] != std::byte{0};
    case GgufType::kFloat32:
    case GgufType::kFloat64:
      return metadata.FindF32(key).value_or(0.0f);
    case GgufType::kArray:
      return fmt::format("{} values", value->count);
    default:
      return metadata.FindU32(key).value_or(0);
  }
}

// A value that is of no use (negative, not finite) is as good as absent here; loading names it.
void AddFact(const GgufMetadata& metadata, const std::string& key, const std::string& name,
             json& facts) {
  try {
    json value = ScalarOf(metadata, key);
    if (!value.is_null()) {
      facts[name] = std::move(value);
    }
  } catch (const Error&) {
    facts[name] = "unusable";
  }
}

// All elements of a tensor as rows, however many dimensions it has.
SurveyedTensor SurveyGgufTensor(GgufTensor tensor, const GgufHeader& header,
                                std::span<const std::byte> file) {
  SurveyedTensor out{.name = std::string(tensor.name), .type = GgmlTypeName(tensor.ggml_type)};
  for (size_t d = 2; d < tensor.dims.size(); ++d) {
    tensor.dims[1] *= tensor.dims[d];  // the reader knows that the product of all fits
    tensor.dims[d] = 1;
  }
  try {
    out.view = LocateGgufTensor(tensor, header, file);
    out.bytes = out.view.bytes();
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kModelFile) {
      out.problem = error.what();
    }
  }
  return out;
}

// How far a tensor reaches beyond the file's end; 0 where its size is not known.
uint64_t BytesBeyond(const GgufTensor& tensor, const GgufHeader& header, uint64_t file_size) {
  const std::optional<DType> type = DTypeFromGgml(tensor.ggml_type);
  if (!type) return 0;
  uint64_t end = tensor.dims[0] / Traits(*type).block_elems;
  bool fits = !__builtin_mul_overflow(end, uint64_t{Traits(*type).block_bytes}, &end);
  for (size_t d = 1; d < tensor.dims.size(); ++d) {
    fits = fits && !__builtin_mul_overflow(end, tensor.dims[d], &end);
  }
  fits = fits && !__builtin_add_overflow(end, tensor.offset, &end) &&
         !__builtin_add_overflow(end, header.data_begin, &end);
  return fits && end > file_size ? end - file_size : 0;
}

void SurveyGgufFile(const std::string& path, const MappedFile& file, const GgufHeader& header,
                    Survey& survey) {
  survey.files.emplace_back(path, file.bytes().size());
  // A type that tandem does not read still has a place: up to where the next tensor begins.
  std::vector<uint64_t> begins;
  for (const GgufTensor& tensor : header.tensors) {
    begins.push_back(tensor.offset);
  }
  begins.push_back(file.bytes().size() -
                   std::min<uint64_t>(header.data_begin, file.bytes().size()));
  std::sort(begins.begin(), begins.end());
  uint64_t missing = 0;
  for (const GgufTensor& tensor : header.tensors) {
    missing = std::max(missing, BytesBeyond(tensor, header, file.bytes().size()));
    SurveyedTensor& out =
        survey.tensors.emplace_back(SurveyGgufTensor(tensor, header, file.bytes()));
    if (out.view.data == nullptr && out.problem.empty()) {
      const auto next = std::upper_bound(begins.begin(), begins.end(), tensor.offset);
      out.bytes = next == begins.end() ? 0 : *next - tensor.offset;
    }
  }
  survey.missing_bytes += missing;
}

void ReadGgufFacts(const GgufMetadata& metadata, Survey& survey) {
  json arch;
  AddFact(metadata, "general.architecture", "architecture", arch);
  survey.architecture =
      arch.is_object() && arch["architecture"].is_string() ? arch["architecture"] : "";
  AddFact(metadata, "general.name", "name", survey.facts);
  for (const char* key : kGgufKeys) {
    AddFact(metadata, survey.architecture + "." + key, key, survey.facts);
  }
  for (const char* key : {"model", "pre", "tokens", "merges", "bos_token_id", "eos_token_id",
                          "add_bos_token", "add_space_prefix"}) {
    AddFact(metadata, std::string("tokenizer.ggml.") + key, key, survey.tokenizer);
  }
  json text;
  AddFact(metadata, "tokenizer.chat_template", "text", text);
  survey.tokenizer["chat_template"] = text.is_object() && text["text"].is_string();
  if (survey.tokenizer["chat_template"] == true) {
    try {
      ChatTemplate::Parse(text["text"].get<std::string>());
    } catch (const Error& error) {
      survey.lacks.push_back(
          fmt::format("chat template (prompts without chat work): {}", error.what()));
    }
  }
}

Survey SurveyGguf(const std::string& path) {
  Survey survey{.source = path, .format = "gguf"};
  auto owner = std::make_shared<std::vector<std::shared_ptr<const MappedFile>>>();
  owner->push_back(MappedFile::Open(path));
  GgufHeader header = ReadGgufHeader(owner->back()->bytes(), path);
  std::vector<std::string> paths{path};
  try {
    if (const std::optional<GgufSplit> split = ReadSplit(header.metadata)) {
      paths = PathsOfParts(path, *split);
    }
  } catch (const Error& error) {
    survey.lacks.push_back(error.what());
  }
  for (const std::string& part : paths) {
    try {
      owner->push_back(MappedFile::Open(part));
      const GgufHeader own = ReadGgufHeader(owner->back()->bytes(), part);
      SurveyGgufFile(part, *owner->back(), own, survey);
      if (part == paths[0]) {
        ReadGgufFacts(own.metadata, survey);
      }
    } catch (const Error& error) {
      survey.lacks.push_back(fmt::format("part {}: {}", part, error.what()));
    }
  }
  survey.memory = std::move(owner);
  return survey;
}

// Scalars alone, and of what is nested only the rotary scaling.
void ReadConfigFacts(const json& config, Survey& survey) {
  for (const auto& [key, value] : config.items()) {
    if (value.is_primitive() && !value.is_null()) {
      survey.facts[key] = value;
    }
  }
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (config.contains(key) && config[key].is_object()) {
      survey.facts[key] = config[key];
    }
  }
  const json classes = config.value("architectures", json::array());
  if (classes.is_array() && !classes.empty() && classes[0].is_string()) {
    survey.architecture = classes[0];
  }
}

Survey SurveyFolder(const std::string& path) {
  HuggingFaceFiles files = OpenHuggingFaceFolder(path);
  Survey survey{.source = files.source, .format = "safetensors"};
  survey.memory = files.owner;
  const json config = *files.Json("config.json", JsonLimits{});
  if (config.is_object()) {
    ReadConfigFacts(config, survey);
  }
  for (const auto& [name, bytes] : files.content) {
    survey.files.emplace_back(files.PathOf(name), bytes.size());
  }
  survey.tokenizer["tokenizer.json"] = files.Has("tokenizer.json");
  for (const WeightFile& file : ReadWeightFiles(files)) {
    for (const SafetensorsTensor& tensor : file.header.tensors) {
      SurveyedTensor out{
          .name = tensor.name, .type = tensor.dtype, .bytes = tensor.end - tensor.begin};
      SafetensorsTensor flat = tensor;
      while (flat.shape.size() > 2) {
        flat.shape[1] *= flat.shape[0];  // the reader knows that the product of all fits
        flat.shape.erase(flat.shape.begin());
      }
      try {
        out.view = LocateSafetensor(flat, file.header, file.bytes, file.path);
      } catch (const Error&) {
        // A type or shape that is no weight: counted, not read.
      }
      survey.tensors.push_back(std::move(out));
    }
  }
  return survey;
}

struct TypeCount {
  std::string type;
  uint64_t count = 0;
  uint64_t bytes = 0;
  bool readable = false;
  std::string first;  // a tensor of it
};

std::vector<TypeCount> CountTypes(const Survey& survey) {
  std::map<std::string, TypeCount> counts;
  for (const SurveyedTensor& tensor : survey.tensors) {
    TypeCount& entry = counts[tensor.type];
    if (entry.count++ == 0) {
      entry.type = tensor.type;
      entry.first = tensor.name;
      entry.readable = DTypeFromName(tensor.type).has_value();
    }
    entry.bytes += tensor.bytes;
  }
  std::vector<TypeCount> out;
  for (auto& [type, entry] : counts) {
    out.push_back(std::move(entry));
  }
  std::sort(out.begin(), out.end(),
            [](const TypeCount& a, const TypeCount& b) { return a.bytes > b.bytes; });
  return out;
}

void NameWhatIsUnknown(Survey& survey) {
  for (const TypeCount& entry : CountTypes(survey)) {
    if (!entry.readable) {
      survey.lacks.push_back(fmt::format("weight type {}: {} tensors ({} the first), {} bytes",
                                         entry.type, entry.count, QuoteForMessage(entry.first),
                                         entry.bytes));
    }
  }
  for (const SurveyedTensor& tensor : survey.tensors) {
    if (!tensor.problem.empty()) {
      survey.lacks.push_back(tensor.problem);
      break;  // a damaged file has many of them
    }
  }
}

}  // namespace

size_t Survey::damaged() const {
  return static_cast<size_t>(std::ranges::count_if(
      tensors, [](const SurveyedTensor& tensor) { return !tensor.problem.empty(); }));
}

Survey SurveyModel(const std::string& path) {
  std::error_code error;
  Survey survey =
      std::filesystem::is_directory(path, error) ? SurveyFolder(path) : SurveyGguf(path);
  NameWhatIsUnknown(survey);
  try {
    survey.model = LoadModel(path);
  } catch (const Error& refusal) {
    const std::string why = refusal.what();
    if (std::find(survey.lacks.begin(), survey.lacks.end(), why) == survey.lacks.end()) {
      survey.lacks.insert(survey.lacks.begin(), why);
    }
  }
  return survey;
}

json DescribeSurvey(const Survey& survey) {
  json files = json::array();
  for (const auto& [path, bytes] : survey.files) {
    files.push_back({{"path", path}, {"bytes", bytes}});
  }
  json types = json::array();
  for (const TypeCount& entry : CountTypes(survey)) {
    types.push_back({{"type", entry.type},
                     {"count", entry.count},
                     {"bytes", entry.bytes},
                     {"readable", entry.readable}});
  }
  return {{"source", survey.source},
          {"format", survey.format},
          {"files", files},
          {"architecture", survey.architecture},
          {"facts", survey.facts},
          {"tokenizer", survey.tokenizer},
          {"tensor_types", types},
          {"lacks", survey.lacks},
          {"supported", survey.model != nullptr},
          {"model", survey.model == nullptr ? json(nullptr) : Describe(*survey.model)}};
}

}  // namespace tandem
