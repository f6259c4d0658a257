// From GGUF bytes to a Model: checks the parts against each other and every tensor against its
// file; the architecture's table takes the rest from there.
#include "engine/model/gguf_load.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <system_error>

#include "engine/base/error.h"
#include "engine/base/sha256.h"
#include "engine/model/arch/architecture.h"
#include "engine/model/assemble.h"
#include "engine/model/gguf.h"
#include "engine/model/gguf_split.h"
#include "engine/model/gguf_vocabulary.h"
#include "engine/model/mapped_file.h"
#include "engine/model/stored_model.h"
#include "engine/model/tensor_table.h"
#include "engine/model/tokenizer.h"

namespace tandem {
namespace {

struct Range {
  uint64_t begin;
  uint64_t end;
  std::string_view name;
};

[[noreturn]] void RefuseTensor(const GgufHeader& header, std::string_view name,
                               const std::string& problem) {
  Fail(ErrorCode::kModelFile, fmt::format("gguf: {}: tensor {}: {}", header.metadata.source(),
                                          QuoteForMessage(name), problem));
}

void RefuseOverlaps(const GgufHeader& header, std::vector<Range>& ranges) {
  std::sort(ranges.begin(), ranges.end(),
            [](const Range& a, const Range& b) { return a.begin < b.begin; });
  for (size_t i = 1; i < ranges.size(); ++i) {
    if (ranges[i].begin < ranges[i - 1].end) {
      RefuseTensor(header, ranges[i].name,
                   "shares bytes with tensor " + QuoteForMessage(ranges[i - 1].name));
    }
  }
}

void AddTensors(const GgufHeader& header, std::span<const std::byte> file, TensorTable& tensors) {
  std::vector<Range> ranges;
  ranges.reserve(header.tensors.size());
  for (const GgufTensor& tensor : header.tensors) {
    const TensorView view = LocateGgufTensor(tensor, header, file);
    ranges.push_back({tensor.offset, tensor.offset + view.bytes(), tensor.name});
    if (tensors.Has(tensor.name)) {
      RefuseTensor(header, tensor.name, "an earlier part of the model holds it as well");
    }
    tensors.Add(tensor.name, view);
  }
  RefuseOverlaps(header, ranges);
}

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

void RequirePartsExist(const std::vector<std::string>& paths) {
  for (size_t no = 0; no < paths.size(); ++no) {
    std::error_code error;
    if (!std::filesystem::exists(paths[no], error)) {
      Fail(ErrorCode::kModelFile,
           fmt::format("gguf: {}: part {} of {} is missing (want every part in one folder)",
                       paths[no], no + 1, paths.size()));
    }
  }
}

// Headers and files of one model, in order.
std::shared_ptr<const Model> LoadParts(std::vector<GgufHeader> headers,
                                       std::vector<std::span<const std::byte>> files,
                                       std::shared_ptr<const void> owner) {
  RequireOneModel(headers);
  const GgufMetadata& metadata = headers[0].metadata;
  const Architecture& arch = ArchitectureOf(metadata);
  ModelParts parts;
  parts.source = metadata.source();
  parts.memory = std::move(owner);
  parts.hash = [files] { return Sha256Hex(files); };
  parts.config = arch.read_config(arch, metadata);

  TensorTable tensors("gguf", parts.source);
  for (size_t i = 0; i < headers.size(); ++i) {
    AddTensors(headers[i], files[i], tensors);
  }
  TakeWeights(arch, tensors, parts);
  parts.tokenizer = ReadTokenizer(metadata, parts.config.vocab);
  parts.chat_template = metadata.FindString("tokenizer.chat_template").value_or("");
  return MakeStoredModel(std::move(parts));
}

}  // namespace

TensorView LocateGgufTensor(const GgufTensor& tensor, const GgufHeader& header,
                            std::span<const std::byte> file) {
  const std::optional<DType> type = DTypeFromGgml(tensor.ggml_type);
  if (!type) {
    Fail(ErrorCode::kUnsupported,
         fmt::format("gguf: {}: tensor {}: tensor type {} ({}) (tandem reads {})",
                     header.metadata.source(), QuoteForMessage(tensor.name),
                     GgmlTypeName(tensor.ggml_type), tensor.ggml_type, DTypeNames()));
  }
  if (tensor.dims[2] != 1 || tensor.dims[3] != 1) {
    RefuseTensor(header, tensor.name, "has more than two dimensions");
  }
  const DTypeTraits& traits = Traits(*type);
  if (tensor.dims[0] % traits.block_elems != 0) {
    RefuseTensor(header, tensor.name,
                 fmt::format("rows of {} elements (want a multiple of {} for {})", tensor.dims[0],
                             traits.block_elems, traits.name));
  }
  uint64_t size = 0;
  if (__builtin_mul_overflow(tensor.dims[0] / traits.block_elems, uint64_t{traits.block_bytes},
                             &size) ||
      __builtin_mul_overflow(size, tensor.dims[1], &size)) {
    RefuseTensor(header, tensor.name, "its size overflows 64 bits");
  }
  if (tensor.offset % header.alignment != 0) {
    RefuseTensor(header, tensor.name,
                 fmt::format("offset {} (want a multiple of the alignment {})", tensor.offset,
                             header.alignment));
  }
  const uint64_t available = header.data_begin < file.size() ? file.size() - header.data_begin : 0;
  if (tensor.offset > available || size > available - tensor.offset) {
    RefuseTensor(header, tensor.name,
                 fmt::format("{} bytes at offset {} of the data, which has {}: the file is "
                             "truncated or corrupt",
                             size, tensor.offset, available));
  }
  return {.data = file.data() + header.data_begin + tensor.offset,
          .type = *type,
          .rows = tensor.dims[1],
          .cols = tensor.dims[0]};
}

std::shared_ptr<const Model> LoadGgufFiles(std::span<const GgufFile> files,
                                           std::shared_ptr<const void> owner) {
  std::vector<GgufHeader> headers;
  std::vector<std::span<const std::byte>> bytes;
  for (const GgufFile& file : files) {
    headers.push_back(ReadGgufHeader(file.bytes, file.source));
    bytes.push_back(file.bytes);
  }
  return LoadParts(std::move(headers), std::move(bytes), std::move(owner));
}

std::shared_ptr<const Model> LoadGgufBytes(std::span<const std::byte> bytes,
                                           std::shared_ptr<const void> owner,
                                           const std::string& source) {
  return LoadGgufFiles(std::vector<GgufFile>{{bytes, source}}, std::move(owner));
}

std::shared_ptr<const Model> LoadGguf(const std::string& path) {
  auto owner = std::make_shared<std::vector<std::shared_ptr<const MappedFile>>>();
  std::vector<GgufHeader> headers;
  std::vector<std::span<const std::byte>> bytes;
  const auto open = [&](const std::string& part) {
    owner->push_back(MappedFile::Open(part));
    bytes.push_back(owner->back()->bytes());
    headers.push_back(ReadGgufHeader(bytes.back(), part));
  };
  open(path);
  if (const std::optional<GgufSplit> split = ReadSplit(headers[0].metadata)) {
    const std::vector<std::string> paths = PathsOfParts(path, *split);
    RequirePartsExist(paths);
    owner->clear();
    bytes.clear();
    headers.clear();
    std::for_each(paths.begin(), paths.end(), open);
  }
  return LoadParts(std::move(headers), std::move(bytes), std::move(owner));
}

}  // namespace tandem
