#include "engine/device/cuda/green.h"

#include <cuda.h>
#include <fmt/format.h>

#include <algorithm>

#include "engine/base/error.h"
#include "engine/device/cuda/handles.h"
#include "engine/device/cuda/work_queues.h"

namespace tandem {
namespace {

// The driver's functions, as the runtime finds them for the version this file was compiled with.
struct DriverApi {
  decltype(&cuDeviceGet) device_get = nullptr;
  decltype(&cuGetErrorString) error_string = nullptr;
  decltype(&cuDeviceGetDevResource) resource_of = nullptr;
  decltype(&cuDevSmResourceSplitByCount) split = nullptr;
  decltype(&cuDevResourceGenerateDesc) describe = nullptr;
  decltype(&cuGreenCtxCreate) create = nullptr;
  decltype(&cuGreenCtxDestroy) destroy = nullptr;
  decltype(&cuGreenCtxStreamCreate) make_stream = nullptr;
};

template <typename Function>
void Find(const char* name, Function& function) {
  void* found = nullptr;
  auto status = cudaDriverEntryPointSymbolNotFound;
  const cudaError_t asked =
      cudaGetDriverEntryPointByVersion(name, &found, CUDART_VERSION, cudaEnableDefault, &status);
  if (asked != cudaSuccess || status != cudaDriverEntryPointSuccess || found == nullptr) {
    cudaGetLastError();
    Fail(ErrorCode::kUnsupported,
         fmt::format("device: the driver has no {}, so that one GPU cannot be cut into several "
                     "devices (want a driver for CUDA 13); update it, or let them share all of the "
                     "GPU: --gpu-share off",
                     name));
  }
  function = reinterpret_cast<Function>(found);
}

const DriverApi& Driver() {
  static const DriverApi api = [] {
    DriverApi found;
    Find("cuDeviceGet", found.device_get);
    Find("cuGetErrorString", found.error_string);
    Find("cuDeviceGetDevResource", found.resource_of);
    Find("cuDevSmResourceSplitByCount", found.split);
    Find("cuDevResourceGenerateDesc", found.describe);
    Find("cuGreenCtxCreate", found.create);
    Find("cuGreenCtxDestroy", found.destroy);
    Find("cuGreenCtxStreamCreate", found.make_stream);
    return found;
  }();
  return api;
}

void CheckDriver(CUresult status, const std::string& what) {
  if (status == CUDA_SUCCESS) return;
  const char* text = nullptr;
  if (Driver().error_string(status, &text) != CUDA_SUCCESS || text == nullptr) text = "?";
  Fail(ErrorCode::kDevice,
       fmt::format("device: {}: {} (driver's error {}); --gpu-share off lets the devices share all "
                   "of the GPU",
                   what, text, static_cast<int>(status)));
}

// The primary context is made before: a green context is a part of it.
CUdevice DeviceOf(int ordinal) {
  OnDevice current(ordinal);
  CheckCuda(cudaFree(nullptr), "make the device's context");
  CUdevice device = 0;
  CheckDriver(Driver().device_get(&device, ordinal), fmt::format("find cuda:{}", ordinal));
  return device;
}

CUdevResource SmsOf(CUdevice device, int ordinal) {
  CUdevResource sms{};
  CheckDriver(Driver().resource_of(device, &sms, CU_DEV_RESOURCE_TYPE_SM),
              fmt::format("read the multiprocessors of cuda:{}", ordinal));
  return sms;
}

class GreenPart final : public GpuPart {
 public:
  GreenPart(int ordinal, CUdevice device, CUdevResource sms)
      : ordinal_(ordinal), sm_count_(sms.sm.smCount) {
    std::vector<CUdevResource> resources{sms};
    AppendWorkQueues(device, Driver().resource_of, resources);
    CUdevResourceDesc description{};
    CheckDriver(
        Driver().describe(&description, resources.data(), static_cast<unsigned>(resources.size())),
        "describe a part of a GPU");
    CheckDriver(Driver().create(&context_, description, device, CU_GREEN_CTX_DEFAULT_STREAM),
                fmt::format("make a part of cuda:{}", ordinal));
  }
  ~GreenPart() override { Driver().destroy(context_); }
  GreenPart(const GreenPart&) = delete;
  GreenPart& operator=(const GreenPart&) = delete;

  uint32_t sm_count() const override { return sm_count_; }

  void* MakeStream(bool urgent) override {
    OnDevice current(ordinal_);
    int least = 0, greatest = 0;
    CheckCuda(cudaDeviceGetStreamPriorityRange(&least, &greatest), "stream priorities");
    CUstream stream = nullptr;
    CheckDriver(
        Driver().make_stream(&stream, context_, CU_STREAM_NON_BLOCKING, urgent ? greatest : least),
        "make a stream of a part of a GPU");
    return stream;
  }

 private:
  int ordinal_;
  uint32_t sm_count_;
  CUgreenCtx context_ = nullptr;
};

}  // namespace

GpuCut ReadGpuCut(int ordinal) {
  const CUdevSmResource sms = SmsOf(DeviceOf(ordinal), ordinal).sm;
  return GpuCut{sms.smCount, std::max(sms.minSmPartitionSize, 1u),
                std::max(sms.smCoscheduledAlignment, 1u)};
}

std::vector<std::shared_ptr<GpuPart>> CutGpu(int ordinal, uint32_t parts, uint32_t sms) {
  const CUdevice device = DeviceOf(ordinal);
  const CUdevResource all = SmsOf(device, ordinal);
  std::vector<CUdevResource> groups(parts);
  unsigned made = parts;
  CUdevResource rest{};
  CheckDriver(Driver().split(groups.data(), &made, &all, &rest, 0, sms),
              fmt::format("cut cuda:{} into {} parts of {} multiprocessors", ordinal, parts, sms));
  if (made < parts || groups[0].sm.smCount != sms) {
    Fail(ErrorCode::kDevice,
         fmt::format("device: cuda:{} has {} multiprocessors and was cut into {} parts of {} (want "
                     "{} of {}: at least {} each, in multiples of {}); name fewer with --gpu-share",
                     ordinal, all.sm.smCount, made, groups[0].sm.smCount, parts, sms,
                     all.sm.minSmPartitionSize, all.sm.smCoscheduledAlignment));
  }
  std::vector<std::shared_ptr<GpuPart>> result;
  for (const CUdevResource& group : groups) {
    result.push_back(std::make_shared<GreenPart>(ordinal, device, group));
  }
  return result;
}

}  // namespace tandem
