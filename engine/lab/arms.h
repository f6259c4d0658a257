// The models and engines of a sweep, kept between repetitions so that arms interleave without
// loading anew. Those used longest ago go when there is no room: in the host's memory by a fixed
// allowance, on GPUs by what the rig has.
//
// One thread. An engine stays valid until the next Add.
//
//   Arms arms(load_model);
//   Engine* engine = arms.Find(key);
//   if (engine == nullptr) engine = &arms.Add(key, options, memory);
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "engine/run/engine.h"

namespace tandem {

class Arms {
 public:
  using LoadModel =
      std::function<std::shared_ptr<const Model>(const std::string& name, bool shape_only)>;
  explicit Arms(LoadModel load_model) : load_model_(std::move(load_model)) {}

  // Shapes are small and all kept. What Model gives may have data, where it costs nothing.
  std::shared_ptr<const Model> Shape(const std::string& name);
  std::shared_ptr<const Model> WithData(const std::string& name);

  // Null where there is none.
  Engine* Find(const std::string& key);
  // `memory` is that of the options' plan. Throws what Engine::Create throws.
  Engine& Add(const std::string& key, EngineOptions options, const MemoryTable& memory);

 private:
  using PerGpu = std::map<int, uint64_t>;  // bytes, by CUDA's number
  struct Arm {
    std::string key;
    std::unique_ptr<Engine> engine;
    PerGpu on_gpus;
  };
  void MakeRoom(const Rig& rig, uint64_t weight_bytes, const PerGpu& wanted);

  LoadModel load_model_;
  std::map<std::string, std::shared_ptr<const Model>> shapes_;
  std::list<std::pair<std::string, std::shared_ptr<const Model>>> models_;
  std::list<Arm> arms_;  // most recently used last
};

}  // namespace tandem
