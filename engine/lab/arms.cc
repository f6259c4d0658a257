#include "engine/lab/arms.h"

#include <algorithm>

namespace tandem {
namespace {

constexpr uint64_t kPackedBytes = uint64_t{3} << 30;
constexpr uint64_t kModelBytes = uint64_t{6} << 30;

}  // namespace

std::shared_ptr<const Model> Arms::Shape(const std::string& name) {
  auto [it, added] = shapes_.try_emplace(name);
  if (added) it->second = load_model_(name, /*shape_only=*/true);
  return it->second;
}

std::shared_ptr<const Model> Arms::WithData(const std::string& name) {
  std::shared_ptr<const Model> shape = Shape(name);
  if (shape->has_data()) return shape;
  for (auto& [known, model] : models_) {
    if (known == name) return model;
  }
  uint64_t total = shape->weight_bytes().value;
  for (auto& [known, model] : models_) total += model->weight_bytes().value;
  while (!models_.empty() && total > kModelBytes) {
    total -= models_.front().second->weight_bytes().value;
    models_.pop_front();
  }
  models_.emplace_back(name, load_model_(name, /*shape_only=*/false));
  return models_.back().second;
}

Engine* Arms::Find(const std::string& key) {
  const auto found =
      std::find_if(arms_.begin(), arms_.end(), [&](const Arm& arm) { return arm.key == key; });
  if (found == arms_.end()) return nullptr;
  arms_.splice(arms_.end(), arms_, found);
  return arms_.back().engine.get();
}

void Arms::MakeRoom(const Rig& rig, uint64_t weight_bytes, const PerGpu& wanted) {
  PerGpu capacity;
  for (size_t d = 0; d < rig.gpus.size(); ++d) {
    capacity[rig.gpus[d]] += rig.devices[d].memory.value;
  }
  const auto fits = [&] {
    uint64_t total = weight_bytes;
    PerGpu used = wanted;
    for (const Arm& arm : arms_) {
      total += arm.engine->info().packed_bytes.value;
      for (const auto& [gpu, bytes] : arm.on_gpus) used[gpu] += bytes;
    }
    // Weights on GPUs are no burden of the host's.
    if (rig.gpus.empty()) return total <= kPackedBytes;
    return std::all_of(used.begin(), used.end(), [&](const auto& gpu) {
      const auto known = capacity.find(gpu.first);
      return known == capacity.end() || gpu.second <= known->second;
    });
  };
  while (!arms_.empty() && !fits()) arms_.pop_front();
}

Engine& Arms::Add(const std::string& key, EngineOptions options, const MemoryTable& memory) {
  PerGpu wanted;
  for (const MemoryRow& row : memory.rows) {
    const auto d = static_cast<size_t>(row.device.value);
    if (!row.device.IsHost() && d < options.rig.gpus.size()) {
      wanted[options.rig.gpus[d]] += row.total().value;
    }
  }
  MakeRoom(options.rig, options.model->weight_bytes().value, wanted);
  arms_.push_back(Arm{key, Engine::Create(std::move(options)), std::move(wanted)});
  return *arms_.back().engine;
}

}  // namespace tandem
