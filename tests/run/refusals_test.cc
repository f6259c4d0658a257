// What cannot run is refused before a weight is loaded: plans that the GPUs have no memory for,
// with the table; paths that cannot be had; paths that are granted and deliver wrong values.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/base/error.h"
#include "engine/run/backend.h"
#include "engine/run/gpu_rig.h"
#include "kernels/forwarding_ops.h"
#include "tests/run/engine_fixture.h"
#include "tests/run/plugin_options.h"

namespace tandem {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kKiB = 1024;

// Kernels that count the weights that they are given.
class CountingOps final : public ForwardingOps {
 public:
  CountingOps(std::unique_ptr<Ops> inner, int* packed)
      : ForwardingOps(std::move(inner)), packed_(packed) {}
  void Pack(const TensorView& tensor, PackedMatrix& out) override {
    ++*packed_;
    ForwardingOps::Pack(tensor, out);
  }

 private:
  int* packed_;
};

class WrongBytes final : public Transport {
 public:
  explicit WrongBytes(std::unique_ptr<Transport> inner) : inner_(std::move(inner)) {}
  PathKind mechanism() const override { return inner_->mechanism(); }
  PathKind path() const override { return inner_->path(); }
  void Copy(const CopyTask& task, TrafficLedger& ledger) override {
    inner_->Copy(task, ledger);
    if (!task.src.IsHost() && !task.dst.IsHost()) task.to[task.row_bytes / 2] ^= std::byte{4};
  }

 private:
  std::unique_ptr<Transport> inner_;
};

// CPU devices where one path cannot be had.
class WithoutPaths final : public Backend {
 public:
  explicit WithoutPaths(std::unique_ptr<Backend> inner) : inner_(std::move(inner)) {}
  std::span<const std::unique_ptr<Device>> devices() const override { return inner_->devices(); }
  Device& host() override { return inner_->host(); }
  Ops& ops(size_t device) override { return inner_->ops(device); }
  WireOps& wire_ops(size_t device) override { return inner_->wire_ops(device); }
  std::unique_ptr<Transport> MakeTransport(PathKind) override {
    Fail(ErrorCode::kUnsupported, "link: built without it");
  }
  std::unique_ptr<Transport> MakeHostTransport(PathKind path) override {
    return inner_->MakeHostTransport(path);
  }

 private:
  std::unique_ptr<Backend> inner_;
};

class RefusalsTest : public ::testing::Test {
 protected:
  EngineOptions Options(const std::string& plugin) {
    EngineOptions options = testing::PluginOptions(testing::TinyModel(), plugin, 2);
    options.hooks.wrap_ops = [this](std::unique_ptr<Ops> ops) -> std::unique_ptr<Ops> {
      return std::make_unique<CountingOps>(std::move(ops), &packed_);
    };
    return options;
  }
  // The message of the refusal.
  std::string Refused(ErrorCode code, EngineOptions options) {
    try {
      Engine::Create(std::move(options));
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code) << error.what();
      EXPECT_EQ(packed_, 0) << "weights were loaded before it was refused";
      return error.what();
    }
    ADD_FAILURE() << "not refused";
    return "";
  }
  int packed_ = 0;
};

// A rig of one GPU with so much free memory, as `devices` of it.
Rig GpuWith(uint64_t free, size_t devices) {
  GpuInventory found;
  found.built_with_cuda = true;
  found.driver_version = found.runtime_version = 13000;
  GpuInfo gpu;
  gpu.name = "card";
  gpu.compute_major = 9;
  gpu.sm_count = 132;
  gpu.clock_hz = 1e9;
  found.gpus = {gpu};
  return GpuRig(std::vector<int>(devices, 0), found,
                [free](int) { return GpuMemory{Bytes{free}, Bytes{uint64_t{80} << 30}}; });
}

TEST_F(RefusalsTest, TwoCopiesOnACardThatHoldsOneAreRefusedWithTheTable) {
  // What one device needs of this model, by its own table.
  const Bytes one =
      Engine::Create(Options("single"))->info().planned.verified.memory.rows[0].total();
  packed_ = 0;
  bool made_devices = false;
  for (const char* plugin : {"replicas", "single"}) {
    EngineOptions options = Options(plugin);
    const bool twice = std::string(plugin) == "replicas";
    options.rig = GpuWith(kGpuReserve.value + one.value + 64 * kKiB, twice ? 2 : 1);
    options.hooks.make_backend = [&](const BackendSetup& setup) {
      made_devices = true;
      return MakeCpuBackend(setup);
    };
    if (!twice) {
      EXPECT_NO_THROW(Engine::Create(options)) << "one copy fits";
      continue;
    }
    const std::string why = Refused(ErrorCode::kPlan, options);
    // The row of the first device that lacks room.
    for (const char* text : {"d0 lacks", "weights", "kv", "activations", "workspace", "and has"}) {
      EXPECT_THAT(why, HasSubstr(text));
    }
    EXPECT_FALSE(made_devices);
  }
  EXPECT_TRUE(made_devices);
}

TEST_F(RefusalsTest, APathThatCannotBeHad) {
  EngineOptions options = Options("tensor_split");
  options.hooks.make_backend = [](const BackendSetup& setup) -> std::unique_ptr<Backend> {
    return std::make_unique<WithoutPaths>(MakeCpuBackend(setup));
  };
  EXPECT_THAT(Refused(ErrorCode::kUnsupported, options), HasSubstr("built without it"));
}

TEST_F(RefusalsTest, AccessThatIsGrantedAndDeliversWrongValues) {
  for (const char* plugin : {"tensor_split", "layer_split"}) {
    EngineOptions options = Options(plugin);
    options.hooks.wrap_transport = [](std::unique_ptr<Transport> inner) {
      return std::make_unique<WrongBytes>(std::move(inner));
    };
    const std::string why = Refused(ErrorCode::kDevice, options);
    EXPECT_THAT(why, HasSubstr("link self-test"));
    EXPECT_THAT(why, HasSubstr("do not trust this path"));
  }
}

}  // namespace
}  // namespace tandem
