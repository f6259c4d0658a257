#include "engine/model/gguf_writer.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <system_error>
#include <utility>

#include "engine/base/check.h"
#include "engine/base/error.h"
#include "engine/model/arch/architecture.h"
#include "engine/model/gguf_split.h"

namespace tandem {
namespace {

constexpr uint32_t kVersion = 3;

template <typename T>
void Append(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

void AppendString(std::string& out, std::string_view text) {
  Append(out, static_cast<uint64_t>(text.size()));
  out.append(text);
}

uint64_t Align(uint64_t offset) {
  return (offset + kGgufDefaultAlignment - 1) / kGgufDefaultAlignment * kGgufDefaultAlignment;
}

// A file that exists under its final name only once Commit has run.
class PendingFile {
 public:
  explicit PendingFile(const std::string& path)
      : path_(path), temporary_(fmt::format("{}.{}.partial", path, ::getpid())) {
    fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd_ < 0) {
      Refuse("cannot create", errno);
    }
  }
  ~PendingFile() {
    if (fd_ >= 0) {
      ::close(fd_);
    }
    if (!committed_) {
      ::unlink(temporary_.c_str());
    }
  }
  PendingFile(const PendingFile&) = delete;
  PendingFile& operator=(const PendingFile&) = delete;

  void Write(const void* data, uint64_t size) {
    const auto* at = static_cast<const char*>(data);
    while (size > 0) {
      const ssize_t written = ::write(fd_, at, std::min<uint64_t>(size, 1u << 30));
      if (written < 0) {
        if (errno == EINTR) {
          continue;
        }
        Refuse("cannot write", errno);
      }
      at += written;
      size -= static_cast<uint64_t>(written);
      size_ += static_cast<uint64_t>(written);
    }
  }

  void PadToAlignment() {
    static constexpr char kZeros[kGgufDefaultAlignment] = {};
    Write(kZeros, Align(size_) - size_);
  }

  void Commit() {
    if (::fsync(fd_) != 0) {
      Refuse("cannot sync", errno);
    }
    if (::close(std::exchange(fd_, -1)) != 0) {
      Refuse("cannot close", errno);
    }
    if (std::rename(temporary_.c_str(), path_.c_str()) != 0) {
      Refuse("cannot rename into place", errno);
    }
    committed_ = true;
  }

 private:
  // Throws, also out of the constructor: nothing exists then that the destructor would remove.
  [[noreturn]] void Refuse(const char* what, int error) const {
    Fail(ErrorCode::kIo,
         fmt::format("gguf: {}: {}: {}", path_, what, std::generic_category().message(error)));
  }

  std::string path_;
  std::string temporary_;
  int fd_ = -1;
  uint64_t size_ = 0;
  bool committed_ = false;
};

}  // namespace

template <typename T>
void GgufWriter::Add(std::string_view key, GgufType type, T value) {
  AppendString(metadata_, key);
  Append(metadata_, static_cast<uint32_t>(type));
  Append(metadata_, value);
  ++keys_;
}

void GgufWriter::AddU32(std::string_view key, uint32_t value) {
  Add(key, GgufType::kUint32, value);
}

void GgufWriter::AddF32(std::string_view key, float value) { Add(key, GgufType::kFloat32, value); }

void GgufWriter::AddString(std::string_view key, std::string_view value) {
  AppendString(metadata_, key);
  Append(metadata_, static_cast<uint32_t>(GgufType::kString));
  AppendString(metadata_, value);
  ++keys_;
}

void GgufWriter::AddTensor(std::string_view name, const TensorView& view) {
  Check(view.data != nullptr, "gguf: a tensor to write needs data");
  tensors_.push_back({std::string(name), view});
}

std::string GgufWriter::Header(std::span<const Entry> tensors) const {
  std::string header = "GGUF";
  Append(header, kVersion);
  Append(header, static_cast<uint64_t>(tensors.size()));
  Append(header, keys_);
  header += metadata_;
  uint64_t offset = 0;
  for (const Entry& tensor : tensors) {
    const bool is_vector = tensor.view.rows == 1;
    AppendString(header, tensor.name);
    Append(header, uint32_t{is_vector ? 1u : 2u});
    Append(header, tensor.view.cols);
    if (!is_vector) {
      Append(header, tensor.view.rows);
    }
    Append(header, Traits(tensor.view.type).ggml_type);
    Append(header, offset);
    offset = Align(offset + tensor.view.bytes());
  }
  return header;
}

void GgufWriter::Write(std::span<const Entry> tensors, const std::string& path) const {
  PendingFile file(path);
  const std::string header = Header(tensors);
  file.Write(header.data(), header.size());
  file.PadToAlignment();
  for (const Entry& tensor : tensors) {
    file.Write(tensor.view.data, tensor.view.bytes());
    file.PadToAlignment();
  }
  file.Commit();
}

void GgufWriter::WriteTo(const std::string& path) const { Write(tensors_, path); }

std::vector<std::string> GgufWriter::WriteParts(const std::string& stem, uint32_t count) const {
  if (count < 2 || count > kMaxGgufParts || count > tensors_.size()) {
    Fail(ErrorCode::kInvalidArgument,
         fmt::format("gguf: {}: {} parts (want 2 to {}, and at most one for each of the {} "
                     "tensors)",
                     stem, count, kMaxGgufParts, tensors_.size()));
  }
  uint64_t total = 0;
  for (const Entry& tensor : tensors_) {
    total += tensor.view.bytes();
  }
  std::vector<std::string> paths;
  size_t begin = 0;
  uint64_t written = 0;
  for (uint32_t no = 0; no < count; ++no) {
    // Up to this part's share of the bytes, one tensor at least, and one left for each later part.
    const size_t most = tensors_.size() - (count - 1 - no);
    size_t end = begin;
    do {
      written += tensors_[end++].view.bytes();
    } while (end < most && (no + 1 == count || written < total / count * (no + 1)));
    GgufWriter part = no == 0 ? GgufWriter(*this) : GgufWriter();
    part.Add("split.no", GgufType::kUint16, static_cast<uint16_t>(no));
    part.Add("split.count", GgufType::kUint16, static_cast<uint16_t>(count));
    part.Add("split.tensors.count", GgufType::kInt32, static_cast<int32_t>(tensors_.size()));
    paths.push_back(PathOfPart(stem, no, count));
    part.Write(std::span(tensors_).subspan(begin, end - begin), paths.back());
    begin = end;
  }
  return paths;
}

namespace {

GgufWriter WriterOf(const Model& model) {
  Check(model.has_data(), "gguf: a model of shapes only cannot be written");
  const ModelConfig& config = model.config();
  const Architecture* arch = FindArchitecture(config.architecture);
  Check(arch != nullptr, "gguf: a model of an architecture without a table");
  GgufWriter writer;
  writer.AddString("general.architecture", arch->name);
  if (!config.name.empty()) {
    writer.AddString("general.name", config.name);
  }
  arch->write_config(*arch, config, writer);
  writer.AddString("tokenizer.ggml.model", "no_vocab");  // else llama.cpp refuses the file
  writer.AddTensor(arch->token_embedding, model.token_embedding());
  for (uint32_t layer = 0; layer < config.n_layers; ++layer) {
    const std::string prefix = arch->layer_prefix(LayerIndex{layer});
    for (const LayerTensor& tensor : arch->layer_tensors) {
      if (!tensor.IsIn(config)) {
        continue;
      }
      writer.AddTensor(prefix + tensor.name, model.layers()[layer].*tensor.slot);
    }
  }
  if (!config.rope_factors.empty()) {
    if (arch->rope_factors == nullptr) {
      Fail(ErrorCode::kUnsupported,
           fmt::format("gguf: a {} file cannot hold rotary frequency factors", arch->name));
    }
    writer.AddTensor(arch->rope_factors,
                     {.data = reinterpret_cast<const std::byte*>(config.rope_factors.data()),
                      .type = DType::kF32,
                      .rows = 1,
                      .cols = config.rope_factors.size()});
  }
  writer.AddTensor(arch->output_norm, model.output_norm());
  if (!config.tied_embedding) {
    writer.AddTensor(arch->output, model.output());
  }
  return writer;
}

}  // namespace

void WriteGguf(const Model& model, const std::string& path) { WriterOf(model).WriteTo(path); }

std::vector<std::string> WriteGgufParts(const Model& model, const std::string& path,
                                        uint32_t count) {
  std::string_view stem = path;
  if (stem.ends_with(".gguf")) {
    stem.remove_suffix(5);
  }
  return WriterOf(model).WriteParts(std::string(stem), count);
}

}  // namespace tandem
