// What the owners of CUDA's objects promise, on emulated GPUs: which errors end a process, and that
// a GPU nobody named gets no context.
#include "engine/device/cuda/handles.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <string>
#include <thread>

#include "engine/base/error.h"
#include "engine/device/cuda/cuda_device.h"
#include "tests/support/emulated_gpus/machine.h"

namespace tandem {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Of these the runtime's header says that the process must be terminated and relaunched, or that
// memory cannot be corrected.
TEST(HandlesTest, ErrorsThatEndTheProcess) {
  for (cudaError_t status :
       {cudaErrorIllegalAddress, cudaErrorLaunchFailure, cudaErrorLaunchTimeout,
        cudaErrorHardwareStackError, cudaErrorIllegalInstruction, cudaErrorMisalignedAddress,
        cudaErrorInvalidAddressSpace, cudaErrorInvalidPc, cudaErrorAssert, cudaErrorContained,
        cudaErrorTensorMemoryLeak, cudaErrorMpsClientTerminated, cudaErrorExternalDevice,
        cudaErrorECCUncorrectable, cudaErrorNvlinkUncorrectable}) {
    EXPECT_TRUE(IsSticky(status)) << cudaGetErrorName(status);
  }
  // These pass, or are of one call alone.
  for (cudaError_t status :
       {cudaSuccess, cudaErrorNotReady, cudaErrorMemoryAllocation, cudaErrorInvalidValue,
        cudaErrorDevicesUnavailable, cudaErrorLaunchOutOfResources, cudaErrorMpsServerNotReady,
        cudaErrorMpsMaxClientsReached, cudaErrorInvalidResourceHandle}) {
    EXPECT_FALSE(IsSticky(status)) << cudaGetErrorName(status);
  }
}

TEST(HandlesTest, AnErrorNamesTheDeviceThatItIsOf) {
  try {
    CheckCudaOn(1, cudaErrorInvalidValue, "try");
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("cuda:1: try: "));
  }
}

// In threads of their own, which have made no device current yet.
TEST(HandlesTest, AGpuThatNobodyNamedGetsNoContext) {
  std::unique_ptr<Device> device, host;
  Buffer memory, pinned;
  std::unique_ptr<DeviceEvent> begun, done;
  const auto in_thread = [](const std::function<void()>& act) { std::thread(act).join(); };
  in_thread([&] {
    device = MakeCudaDevice(DeviceId{0}, 1, Bytes{1 << 20});
    host = MakePinnedHost(Bytes{1 << 20});
    memory = device->Allocate(MemoryUse::kWorkspace, Bytes{4096}, "test");
    pinned = host->Allocate(MemoryUse::kWorkspace, Bytes{4096}, "test");
  });
  in_thread([&] {
    DeviceQueue& queue = *device->queue(QueueRole::kCompute);
    begun = queue.MakeEvent();
    done = queue.MakeEvent();
    queue.Mark(*begun);
    queue.Copy({.to = memory.data(), .from = pinned.data(), .row_bytes = 4096});
    queue.Mark(*done);
    device->queue(QueueRole::kComm)->WaitFor(*done);
  });
  in_thread([&] { done->Finish(); });
  in_thread([&] { EXPECT_GE(done->Since(*begun).value, 0); });
  in_thread([&] { EXPECT_FALSE(IsGpuLost(1)); });
  in_thread([&] { begun.reset(); });
  in_thread([&] {
    memory = Buffer();
    pinned = Buffer();
  });
  in_thread([&] {
    done.reset();
    device.reset();
  });
  EXPECT_THAT(emulated::Machine::Get().contexts(), ElementsAre(1));
}

TEST(HandlesTest, WhatWasMadeCurrentHereIsCurrentAgain) {
  std::thread([] {
    MakeCurrent(1);
    {
      OnDevice current(0);
      EXPECT_EQ(emulated::CurrentDevice(), 0);
    }
    EXPECT_EQ(emulated::CurrentDevice(), 1);
  }).join();
}

}  // namespace
}  // namespace tandem
