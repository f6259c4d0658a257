// The driver's green contexts over the emulated machine, and the probe of a GPU's parts, whose
// kernels say nothing where there are no multiprocessors: bandwidths are made up so that the
// calibration has something to find, half of the memory's at three quarters of a half.
//
// What it holds its callers to: parts are made of what the device gave, and their descriptions are
// used once.
#include <cuda.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <string_view>

#include "kernels/cuda/share_probe.h"
#include "tests/support/emulated_gpus/machine.h"

namespace {

using tandem::emulated::Machine;

constexpr unsigned kSms = 8;
constexpr unsigned kStep = 2;

struct Part {
  int device = 0;
  unsigned sms = 0;
};

std::mutex mutex;
std::map<void*, Part*> parts;            // by handle
std::map<void*, unsigned> descriptions;  // not yet used

CUresult DeviceGet(CUdevice* device, int ordinal) {
  if (ordinal < 0 || ordinal >= Machine::Get().devices()) return CUDA_ERROR_INVALID_DEVICE;
  *device = ordinal;
  return CUDA_SUCCESS;
}

CUresult ErrorString(CUresult, const char** text) {
  *text = "an error of the emulated driver";
  return CUDA_SUCCESS;
}

CUresult ResourceOf(CUdevice device, CUdevResource* resource, CUdevResourceType type) {
  if (device < 0 || device >= Machine::Get().devices()) return CUDA_ERROR_INVALID_DEVICE;
  if (type != CU_DEV_RESOURCE_TYPE_SM) return CUDA_ERROR_INVALID_RESOURCE_TYPE;
  resource->type = type;
  resource->sm = CUdevSmResource{};
  resource->sm.smCount = kSms;
  resource->sm.minSmPartitionSize = kStep;
  resource->sm.smCoscheduledAlignment = kStep;
  return CUDA_SUCCESS;
}

CUresult Split(CUdevResource* groups, unsigned* count, const CUdevResource* input,
               CUdevResource* rest, unsigned, unsigned least) {
  const unsigned size = (std::max(least, kStep) + kStep - 1) / kStep * kStep;
  *count = std::min(*count, input->sm.smCount / size);
  for (unsigned i = 0; i < *count; ++i) {
    groups[i] = *input;
    groups[i].sm.smCount = size;
  }
  if (rest != nullptr) {
    *rest = *input;
    rest->sm.smCount = input->sm.smCount - *count * size;
  }
  return CUDA_SUCCESS;
}

CUresult Describe(CUdevResourceDesc* description, CUdevResource* resources, unsigned count) {
  if (count != 1 || resources[0].type != CU_DEV_RESOURCE_TYPE_SM) {
    return CUDA_ERROR_INVALID_RESOURCE_CONFIGURATION;
  }
  const std::scoped_lock lock(mutex);
  static uintptr_t next = 1;
  *description = reinterpret_cast<CUdevResourceDesc>(next++);
  descriptions[*description] = resources[0].sm.smCount;
  return CUDA_SUCCESS;
}

CUresult Create(CUgreenCtx* context, CUdevResourceDesc description, CUdevice device,
                unsigned flags) {
  if (flags != CU_GREEN_CTX_DEFAULT_STREAM) return CUDA_ERROR_INVALID_VALUE;
  const std::scoped_lock lock(mutex);
  const auto known = descriptions.find(description);
  if (known == descriptions.end()) return CUDA_ERROR_INVALID_VALUE;
  auto* part = new Part{.device = device, .sms = known->second};
  descriptions.erase(known);
  *context = reinterpret_cast<CUgreenCtx>(part);
  parts[*context] = part;
  return CUDA_SUCCESS;
}

CUresult Destroy(CUgreenCtx context) {
  const std::scoped_lock lock(mutex);
  const auto known = parts.find(context);
  if (known == parts.end()) return CUDA_ERROR_INVALID_CONTEXT;
  delete known->second;
  parts.erase(known);
  return CUDA_SUCCESS;
}

CUresult MakeStream(CUstream* stream, CUgreenCtx context, unsigned flags, int) {
  if (flags != CU_STREAM_NON_BLOCKING) return CUDA_ERROR_INVALID_VALUE;
  const std::scoped_lock lock(mutex);
  const auto known = parts.find(context);
  if (known == parts.end()) return CUDA_ERROR_INVALID_CONTEXT;
  *stream = reinterpret_cast<CUstream>(Machine::Get().MakeStream(known->second->device));
  return CUDA_SUCCESS;
}

void* FunctionOf(std::string_view name) {
  if (name == "cuDeviceGet") return reinterpret_cast<void*>(&DeviceGet);
  if (name == "cuGetErrorString") return reinterpret_cast<void*>(&ErrorString);
  if (name == "cuDeviceGetDevResource") return reinterpret_cast<void*>(&ResourceOf);
  if (name == "cuDevSmResourceSplitByCount") return reinterpret_cast<void*>(&Split);
  if (name == "cuDevResourceGenerateDesc") return reinterpret_cast<void*>(&Describe);
  if (name == "cuGreenCtxCreate") return reinterpret_cast<void*>(&Create);
  if (name == "cuGreenCtxDestroy") return reinterpret_cast<void*>(&Destroy);
  if (name == "cuGreenCtxStreamCreate") return reinterpret_cast<void*>(&MakeStream);
  return nullptr;
}

}  // namespace

extern "C" cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** function, unsigned,
                                                        unsigned long long,
                                                        cudaDriverEntryPointQueryResult* status) {
  *function = FunctionOf(name);
  *status = *function != nullptr ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
  return cudaSuccess;
}

namespace tandem {

ShareBandwidth MeasureShares(int, std::span<const std::shared_ptr<GpuPart>> parts) {
  const double alone = 1e9 * parts[0]->sm_count();
  return {alone, std::min(alone, 6e9 / static_cast<double>(parts.size()))};
}

bool PartsRunTogether(int gpu, std::span<const std::shared_ptr<GpuPart>> parts) {
  for (const auto& part : parts) {
    cudaSetDevice(gpu);
    cudaStreamDestroy(static_cast<cudaStream_t>(part->MakeStream(false)));
  }
  return true;
}

std::vector<uint32_t> MultiprocessorsOf(int, const std::shared_ptr<GpuPart>&) { return {}; }

}  // namespace tandem
