// Element i of tensor t is a function of (seed, t, i) alone: splitmix64 of a counter, four 16-bit
// lanes a word, each lane a step of a uniform grid that is symmetric around zero. Integer hashing
// and single f32 roundings only (no fused multiply-adds), so the bytes are the same on every
// machine.
#include "engine/model/synthetic.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <thread>

#include "engine/base/check.h"
#include "engine/base/error.h"
#include "engine/base/sha256.h"
#include "engine/model/arch/architecture.h"
#include "engine/model/gguf_writer.h"
#include "engine/model/stored_model.h"

namespace tandem {
namespace {

// Changes whenever the same specification would give other bytes: it is part of the weights' hash.
constexpr int kGeneratorVersion = 1;
constexpr uint64_t kTensorAlignment = 64;
constexpr float kNormHalfWidth = 0.1f;
constexpr float kBiasHalfWidth = 0.5f;

// splitmix64's step: Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (2014).
uint64_t Mix(uint64_t z) {
  z += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

// values[i] = center + half_width * u, u uniform in (-1, 1), for elements first ... of a stream.
// REQUIRES: first is a multiple of 4.
void FillUniform(uint64_t stream, uint64_t first, uint64_t count, float center, float half_width,
                 float* values) {
  const float step = half_width / 32768.0f;
  for (uint64_t i = 0; i < count; i += 4) {
    const uint64_t word = Mix(stream + (first + i) / 4);
    for (uint64_t lane = 0; lane < 4 && i + lane < count; ++lane) {
      const auto grid = static_cast<float>((word >> (16 * lane)) & 0xffffu) - 32767.5f;
      values[i + lane] = center + grid * step;
    }
  }
}

// One tensor to make: where, and from which distribution.
struct Task {
  TensorView view;  // shape and type
  std::byte* out = nullptr;
  uint64_t stream = 0;
  float center = 0;
  float half_width = 0;
};

void FillRows(const Task& task, uint64_t begin, uint64_t end) {
  const uint64_t cols = task.view.cols;
  // Rows start on fresh words, so a row does not depend on which rows share its call.
  const uint64_t row_stride = (cols + 3) / 4 * 4;
  std::vector<float> row(cols);
  for (uint64_t r = begin; r < end; ++r) {
    FillUniform(task.stream, r * row_stride, cols, task.center, task.half_width, row.data());
    QuantizeRow(task.view.type, row.data(), task.out + r * task.view.row_bytes(), cols);
  }
}

// Shares the rows of each tensor out to this machine's cores; the bytes do not depend on how many.
void Fill(const std::vector<Task>& tasks, const FillProgress& progress) {
  static constexpr uint64_t kWorthThreads = 1u << 20;
  const uint64_t cores = std::clamp(std::thread::hardware_concurrency(), 1u, 16u);
  uint64_t elems = 0;
  Bytes all;
  for (const Task& task : tasks) {
    elems += task.view.rows * task.view.cols;
    all += Bytes{task.view.bytes()};
  }
  const uint64_t n_threads = elems < kWorthThreads ? 1 : cores;
  const auto fill_share = [&](uint64_t t) {
    Bytes done;
    for (const Task& task : tasks) {
      FillRows(task, task.view.rows * t / n_threads, task.view.rows * (t + 1) / n_threads);
      done += Bytes{task.view.bytes()};
      if (t == 0 && progress) progress(done, all);
    }
  };
  std::vector<std::jthread> threads;
  for (uint64_t t = 1; t < n_threads; ++t) {
    threads.emplace_back(fill_share, t);
  }
  fill_share(0);
}

TensorView Shape(DType type, uint64_t rows, uint64_t cols) {
  return {.data = nullptr, .type = type, .rows = rows, .cols = cols};
}

const Architecture& ArchitectureOf(const SyntheticSpec& spec) {
  const Architecture* arch = FindArchitecture(spec.config.architecture);
  Check(arch != nullptr, "synthetic: SyntheticProblem knows the architecture");
  return *arch;
}

// Every view of the model, without data. REQUIRES: a spec without problems.
ModelParts Shapes(const SyntheticSpec& spec) {
  const ModelConfig& config = spec.config;
  ModelParts parts;
  parts.config = config;
  parts.has_data = false;
  parts.source = "synthetic:" + FormatSyntheticSpec(spec);
  parts.hash = [text = parts.source] {
    return Sha256Hex(fmt::format("{} generator {}", text, kGeneratorVersion));
  };
  parts.token_embedding = Shape(spec.embedding_type, config.vocab, config.hidden);
  parts.output_norm = Shape(DType::kF32, 1, config.hidden);
  parts.output = parts.token_embedding;
  LayerWeights layer;
  for (const LayerTensor& tensor : ArchitectureOf(spec).layer_tensors) {
    if (tensor.IsIn(config)) {
      layer.*tensor.slot = Shape(tensor.IsVector() ? DType::kF32 : spec.type,
                                 ExtentOf(tensor.rows, config), ExtentOf(tensor.cols, config));
    }
  }
  parts.layers.assign(config.n_layers, layer);
  return parts;
}

// What there is to fill; `out` is an offset into memory that does not exist yet.
class TaskList {
 public:
  void AddNorm(TensorView& view) { Add(view, 1.0f, kNormHalfWidth); }
  void AddBias(TensorView& view) { Add(view, 0.0f, kBiasHalfWidth); }
  // A uniform distribution of half width w has variance w^2 / 3.
  void AddWeights(TensorView& view, float variance) { Add(view, 0.0f, std::sqrt(3 * variance)); }

  uint64_t bytes() const { return bytes_; }

  std::vector<Task> Place(std::byte* base, uint64_t seed) const {
    std::vector<Task> tasks;
    uint64_t offset = 0;
    for (const Item& item : items_) {
      item.view->data = base + offset;
      tasks.push_back({.view = *item.view,
                       .out = base + offset,
                       .stream = Mix(Mix(seed) + tasks.size()),
                       .center = item.center,
                       .half_width = item.half_width});
      offset += AlignedBytes(*item.view);
    }
    return tasks;
  }

 private:
  struct Item {
    TensorView* view;
    float center;
    float half_width;
  };

  static uint64_t AlignedBytes(const TensorView& view) {
    return (view.bytes() + kTensorAlignment - 1) / kTensorAlignment * kTensorAlignment;
  }
  void Add(TensorView& view, float center, float half_width) {
    items_.push_back({&view, center, half_width});
    bytes_ += AlignedBytes(view);
  }

  std::vector<Item> items_;
  uint64_t bytes_ = 0;
};

// The order fixes each tensor's stream.
TaskList ListTasks(const SyntheticSpec& spec, ModelParts& parts) {
  TaskList tasks;
  tasks.AddWeights(parts.token_embedding, 1.0f);
  tasks.AddNorm(parts.output_norm);
  if (!spec.config.tied_embedding) {
    tasks.AddWeights(parts.output, 1.0f / static_cast<float>(spec.config.hidden));
  }
  const size_t own_layers = spec.shared_layers ? 1 : parts.layers.size();
  for (size_t i = 0; i < own_layers; ++i) {
    for (const LayerTensor& tensor : ArchitectureOf(spec).layer_tensors) {
      TensorView& view = parts.layers[i].*tensor.slot;
      if (!tensor.IsIn(spec.config)) {
        continue;
      }
      if (tensor.role == TensorRole::kNorm) {
        tasks.AddNorm(view);
      } else if (tensor.role == TensorRole::kBias) {
        tasks.AddBias(view);
      } else {
        tasks.AddWeights(view, 1.0f / static_cast<float>(view.cols));
      }
    }
  }
  return tasks;
}

std::shared_ptr<std::byte> Allocate(uint64_t bytes) {
  const uint64_t memory = static_cast<uint64_t>(::sysconf(_SC_PHYS_PAGES)) *
                          static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  void* base = bytes <= memory ? std::aligned_alloc(kTensorAlignment, bytes) : nullptr;
  if (base == nullptr) {
    Fail(ErrorCode::kInvalidArgument,
         fmt::format(
             "synthetic model: its weights take {} bytes, this machine has {} bytes of memory "
             "(want a smaller shape, a smaller type, or shared=1)",
             bytes, memory));
  }
  return {static_cast<std::byte*>(base), [](std::byte* p) { std::free(p); }};
}

void Validate(const SyntheticSpec& spec) {
  const std::string problem = SyntheticProblem(spec);
  if (!problem.empty()) {
    Fail(ErrorCode::kInvalidArgument, "synthetic model: " + problem);
  }
}

}  // namespace

ModelConfig TinyConfig() {
  ModelConfig config;
  config.n_layers = 2;
  config.hidden = 64;
  config.n_heads = 4;
  config.n_kv_heads = 2;
  config.head_dim = 16;
  config.ffn = 96;
  config.vocab = 320;
  config.context = 256;
  config.rope_dim = 16;
  config.tied_embedding = true;
  return config;
}

std::string SyntheticProblem(const SyntheticSpec& spec) {
  const ModelConfig& config = spec.config;
  const Architecture* arch = FindArchitecture(config.architecture);
  if (arch == nullptr) {
    return fmt::format("architecture '{}' (want {})", config.architecture,
                       fmt::join(ArchitectureNames(), ", "));
  }
  std::string problem = ConfigProblem(config);
  if (problem.empty()) {
    problem = FamilyProblem(*arch, config);
  }
  if (!problem.empty()) {
    return problem;
  }
  const auto misfit = [](DType type, uint64_t cols) {
    return cols % Traits(type).block_elems != 0;
  };
  if (misfit(spec.embedding_type, config.hidden)) {
    return fmt::format("embedding rows of {} (want a multiple of {} for {})", config.hidden,
                       Traits(spec.embedding_type).block_elems, ToString(spec.embedding_type));
  }
  for (const LayerTensor& tensor : arch->layer_tensors) {
    const uint64_t cols = ExtentOf(tensor.cols, config);
    if (!tensor.IsVector() && misfit(spec.type, cols)) {
      return fmt::format("{}: rows of {} (want a multiple of {} for {})", tensor.name, cols,
                         Traits(spec.type).block_elems, ToString(spec.type));
    }
  }
  return "";
}

std::shared_ptr<const Model> MakeShapeOnlyModel(const SyntheticSpec& spec) {
  Validate(spec);
  return MakeStoredModel(Shapes(spec));
}

std::shared_ptr<const Model> MakeSyntheticModel(const SyntheticSpec& spec,
                                                const FillProgress& progress) {
  Validate(spec);
  ModelParts parts = Shapes(spec);
  const TaskList list = ListTasks(spec, parts);
  const std::shared_ptr<std::byte> memory = Allocate(list.bytes());
  Fill(list.Place(memory.get(), spec.seed), progress);
  if (spec.shared_layers) {
    parts.layers.assign(parts.layers.size(), LayerWeights(parts.layers[0]));
  }
  if (spec.config.tied_embedding) {
    parts.output = parts.token_embedding;
  }
  parts.has_data = true;
  parts.memory = memory;
  return MakeStoredModel(std::move(parts));
}

void WriteSyntheticGguf(const SyntheticSpec& spec, const std::string& path) {
  WriteGguf(*MakeSyntheticModel(spec), path);
}

}  // namespace tandem
