#include "tests/plugin/test_problem.h"

#include <fmt/format.h>

namespace tandem {
namespace {

ModelConfig Config(const ProblemShape& shape) {
  ModelConfig config;
  config.n_layers = shape.layers;
  config.hidden = 32;
  config.n_kv_heads = shape.kv_heads;
  config.n_heads = 2 * shape.kv_heads;
  config.head_dim = 16;
  config.rope_dim = 16;
  config.ffn = 160;
  config.vocab = 320;
  config.context = 4096;
  config.tied_embedding = shape.tied;
  return config;
}

LinkProfile Link(const char* name, LinkKind kind, int64_t latency_ns, int64_t ns_per_mib) {
  LinkProfile link;
  link.name = name;
  link.kind = kind;
  link.send.points = {{Bytes{1024}, Nanos{latency_ns}},
                      {Bytes{1024 + (1u << 20)}, Nanos{latency_ns + ns_per_mib}}};
  return link;
}

Rig MakeRig(const ProblemShape& shape) {
  Rig rig;
  rig.name = "test";
  for (uint32_t i = 0; i < shape.devices; ++i) {
    DeviceSpec device;
    device.name = fmt::format("card {}", i);
    device.memory = shape.memory;
    device.memory_bytes_per_s = 9e11;
    device.flops = 7e13;
    device.launch_gap = Nanos{3000};
    rig.devices.push_back(device);
  }
  if (shape.cpu) {
    DeviceSpec& cpu = rig.devices.back();
    cpu = DeviceSpec{.name = "cpu", .memory_bytes_per_s = 8e10, .flops = 1e12, .on_host = true};
    cpu.launch_gap = Nanos{1000};
  }
  rig.link = Link("bridge", LinkKind::kNvlink, 5000, 20000);
  rig.host_link = Link("pcie", LinkKind::kPcieP2p, 9000, 80000);
  return rig;
}

}  // namespace

TestProblem::TestProblem(const ProblemShape& shape)
    : graph(BuildBlockGraph(Config(shape), std::vector<BlockTypes>(shape.layers + 1))),
      rig(MakeRig(shape)),
      problem{&graph, &rig, {}, WireType::kF32, PathKind::kAuto, shape.tensor_split} {
  problem.limits.max_step_tokens = 64;
  problem.limits.max_sequences = 2;
  problem.limits.context = 512;
}

}  // namespace tandem
