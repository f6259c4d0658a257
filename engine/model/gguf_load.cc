// From GGUF bytes to a Model: finds the architecture's table, checks every tensor against the file
// and the configuration, fills the views.
#include "engine/model/gguf_load.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <optional>

#include "engine/base/error.h"
#include "engine/base/sha256.h"
#include "engine/model/arch/architecture.h"
#include "engine/model/gguf.h"
#include "engine/model/gguf_vocabulary.h"
#include "engine/model/mapped_file.h"
#include "engine/model/stored_model.h"
#include "engine/model/tokenizer.h"

namespace tandem {
namespace {

// The tensors of a file, handed out by name. What nobody takes is an error: a tensor that is not
// used means arithmetic that is not done.
class TensorTable {
 public:
  TensorTable(const GgufHeader& header, std::span<const std::byte> file)
      : source_(header.metadata.source()) {
    std::vector<Range> ranges;
    ranges.reserve(header.tensors.size());
    for (const GgufTensor& tensor : header.tensors) {
      const TensorView view = Locate(tensor, header, file);
      ranges.push_back({tensor.offset, tensor.offset + view.bytes(), tensor.name});
      views_.emplace(tensor.name, view);
    }
    RefuseOverlaps(ranges);
  }

  bool Has(std::string_view name) const { return views_.contains(name); }

  // At most 2^32 - 1; 0 when there is no such tensor.
  uint32_t RowsOf(std::string_view name) const {
    const auto it = views_.find(name);
    return it == views_.end()
               ? 0
               : static_cast<uint32_t>(std::min<uint64_t>(it->second.rows, UINT32_MAX));
  }

  TensorView Take(const std::string& name, uint64_t rows, uint64_t cols) {
    const auto it = views_.find(name);
    if (it == views_.end()) {
      Refuse(name, fmt::format("missing (want {} x {})", rows, cols));
    }
    const TensorView view = it->second;
    if (view.cols != cols || view.rows != rows) {
      Refuse(name, fmt::format("has {} rows of {} (want {} rows of {})", view.rows, view.cols, rows,
                               cols));
    }
    views_.erase(it);
    return view;
  }

  // Norms, biases, rotary factors.
  TensorView TakeVector(const std::string& name, uint64_t width) {
    const TensorView view = Take(name, 1, width);
    if (view.type != DType::kF32) {
      Fail(ErrorCode::kUnsupported,
           fmt::format("gguf: {}: tensor {}: vector of type {} (want F32)", source_,
                       QuoteForMessage(name), ToString(view.type)));
    }
    return view;
  }

  void RefuseRest(const Architecture& arch) const {
    if (!views_.empty()) {
      const std::string_view name = views_.begin()->first;
      Fail(ErrorCode::kUnsupported,
           fmt::format("gguf: {}: tensor {}: {}", source_, QuoteForMessage(name),
                       arch.reason_unsupported(name)));
    }
  }

 private:
  struct Range {
    uint64_t begin;
    uint64_t end;
    std::string_view name;
  };

  [[noreturn]] void Refuse(std::string_view name, const std::string& problem) const {
    Fail(ErrorCode::kModelFile,
         fmt::format("gguf: {}: tensor {}: {}", source_, QuoteForMessage(name), problem));
  }

  TensorView Locate(const GgufTensor& tensor, const GgufHeader& header,
                    std::span<const std::byte> file) const {
    const std::optional<DType> type = DTypeFromGgml(tensor.ggml_type);
    if (!type) {
      Fail(ErrorCode::kUnsupported,
           fmt::format("gguf: {}: tensor {}: tensor type {} ({}) (tandem reads {})", source_,
                       QuoteForMessage(tensor.name), GgmlTypeName(tensor.ggml_type),
                       tensor.ggml_type, DTypeNames()));
    }
    if (tensor.dims[2] != 1 || tensor.dims[3] != 1) {
      Refuse(tensor.name, "has more than two dimensions");
    }
    const DTypeTraits& traits = Traits(*type);
    if (tensor.dims[0] % traits.block_elems != 0) {
      Refuse(tensor.name, fmt::format("rows of {} elements (want a multiple of {} for {})",
                                      tensor.dims[0], traits.block_elems, traits.name));
    }
    uint64_t size = 0;
    if (__builtin_mul_overflow(tensor.dims[0] / traits.block_elems, uint64_t{traits.block_bytes},
                               &size) ||
        __builtin_mul_overflow(size, tensor.dims[1], &size)) {
      Refuse(tensor.name, "its size overflows 64 bits");
    }
    if (tensor.offset % header.alignment != 0) {
      Refuse(tensor.name, fmt::format("offset {} (want a multiple of the alignment {})",
                                      tensor.offset, header.alignment));
    }
    const uint64_t available =
        header.data_begin < file.size() ? file.size() - header.data_begin : 0;
    if (tensor.offset > available || size > available - tensor.offset) {
      Refuse(tensor.name,
             fmt::format("{} bytes at offset {} of the data, which has {}: the file is "
                         "truncated or corrupt",
                         size, tensor.offset, available));
    }
    return {.data = file.data() + header.data_begin + tensor.offset,
            .type = *type,
            .rows = tensor.dims[1],
            .cols = tensor.dims[0]};
  }

  void RefuseOverlaps(std::vector<Range>& ranges) const {
    std::sort(ranges.begin(), ranges.end(),
              [](const Range& a, const Range& b) { return a.begin < b.begin; });
    for (size_t i = 1; i < ranges.size(); ++i) {
      if (ranges[i].begin < ranges[i - 1].end) {
        Refuse(ranges[i].name, "shares bytes with tensor " + QuoteForMessage(ranges[i - 1].name));
      }
    }
  }

  std::string source_;
  std::map<std::string_view, TensorView> views_;  // ordered, so that messages are stable
};

// Null when the file has no vocabulary.
std::unique_ptr<Tokenizer> ReadTokenizer(const GgufMetadata& metadata, uint32_t vocab) {
  std::optional<VocabularyData> data = ReadVocabularyData(metadata, vocab);
  return data ? MakeTokenizer(std::move(*data), metadata.source()) : nullptr;
}

const Architecture& ArchitectureOf(const GgufMetadata& metadata) {
  const std::string name = metadata.RequireString("general.architecture");
  const Architecture* arch = FindArchitecture(name);
  if (arch == nullptr) {
    Fail(ErrorCode::kUnsupported,
         fmt::format("gguf: {}: architecture {} (tandem knows {})", metadata.source(),
                     QuoteForMessage(name), fmt::join(ArchitectureNames(), ", ")));
  }
  return *arch;
}

// What a family's models may have or not is there when the first layer has a tensor of it.
void DetectOptions(const Architecture& arch, const TensorTable& tensors, ModelConfig& config) {
  for (const LayerTensor& tensor : arch.layer_tensors) {
    if (!tensor.IsIn(config) && tensors.Has(arch.layer_prefix(LayerIndex{0}) + tensor.name)) {
      config.*tensor.when = true;
    }
  }
}

void TakeRopeFactors(const Architecture& arch, TensorTable& tensors, ModelConfig& config) {
  if (arch.rope_factors == nullptr || !tensors.Has(arch.rope_factors)) {
    return;
  }
  const TensorView view = tensors.TakeVector(arch.rope_factors, config.rope_dim / 2);
  config.rope_factors.resize(view.cols);
  std::memcpy(config.rope_factors.data(), view.data, view.bytes());
}

void TakeLayers(const Architecture& arch, TensorTable& tensors, ModelParts& parts) {
  for (uint32_t i = 0; i < parts.config.n_layers; ++i) {
    const std::string prefix = arch.layer_prefix(LayerIndex{i});
    LayerWeights& layer = parts.layers.emplace_back();
    for (const LayerTensor& tensor : arch.layer_tensors) {
      if (!tensor.IsIn(parts.config)) {
        continue;
      }
      const uint64_t rows = ExtentOf(tensor.rows, parts.config);
      const uint64_t cols = ExtentOf(tensor.cols, parts.config);
      layer.*tensor.slot = tensor.IsVector() ? tensors.TakeVector(prefix + tensor.name, cols)
                                             : tensors.Take(prefix + tensor.name, rows, cols);
    }
  }
}

}  // namespace

std::shared_ptr<const Model> LoadGgufBytes(std::span<const std::byte> bytes,
                                           std::shared_ptr<const void> owner,
                                           const std::string& source) {
  const GgufHeader header = ReadGgufHeader(bytes, source);
  const Architecture& arch = ArchitectureOf(header.metadata);
  ModelParts parts;
  parts.source = source;
  parts.memory = std::move(owner);
  parts.hash = [bytes] { return Sha256Hex(bytes); };
  parts.config = arch.read_config(arch, header.metadata);

  TensorTable tensors(header, bytes);
  if (parts.config.vocab == 0) {
    parts.config.vocab = tensors.RowsOf(arch.token_embedding);
  }
  ValidateConfig(parts.config, source);
  DetectOptions(arch, tensors, parts.config);
  TakeRopeFactors(arch, tensors, parts.config);
  ValidateConfig(parts.config, source);
  parts.token_embedding =
      tensors.Take(arch.token_embedding, parts.config.vocab, parts.config.hidden);
  TakeLayers(arch, tensors, parts);
  parts.output_norm = tensors.TakeVector(arch.output_norm, parts.config.hidden);
  parts.config.tied_embedding = !tensors.Has(arch.output);
  parts.output = parts.config.tied_embedding
                     ? parts.token_embedding
                     : tensors.Take(arch.output, parts.config.vocab, parts.config.hidden);
  tensors.RefuseRest(arch);

  parts.tokenizer = ReadTokenizer(header.metadata, parts.config.vocab);
  parts.chat_template = header.metadata.FindString("tokenizer.chat_template").value_or("");
  return MakeStoredModel(std::move(parts));
}

std::shared_ptr<const Model> LoadGguf(const std::string& path) {
  std::shared_ptr<const MappedFile> file = MappedFile::Open(path);
  const std::span<const std::byte> bytes = file->bytes();
  return LoadGgufBytes(bytes, std::move(file), path);
}

}  // namespace tandem
