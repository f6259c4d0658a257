// Elementwise ops and the table lookup.
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/rows.h"
#include "kernels/cuda/weights.cuh"

namespace tandem::cuda {
namespace {

constexpr uint32_t kThreads = 256;

__global__ void __launch_bounds__(kThreads)
    AddKernel(const float* x, const float* y, uint64_t n, float* out) {
  const uint64_t i = uint64_t{blockIdx.x} * kThreads + threadIdx.x;
  WaitForPrevious();
  if (i < n) out[i] = x[i] + y[i];
}

__global__ void __launch_bounds__(kThreads)
    AddVectors(const float4* x, const float4* y, uint64_t n, float4* out) {
  const uint64_t i = uint64_t{blockIdx.x} * kThreads + threadIdx.x;
  WaitForPrevious();
  if (i >= n) return;
  out[i] = AddQuads(x[i], y[i]);
}

__global__ void __launch_bounds__(kThreads)
    AddBiasKernel(const float* bias, uint64_t n, uint64_t width, float* y) {
  const uint64_t i = uint64_t{blockIdx.x} * kThreads + threadIdx.x;
  WaitForPrevious();
  if (i < n * width) y[i] += bias[i % width];
}

__global__ void __launch_bounds__(kThreads)
    SwiGluKernel(const float* gate, const float* up, uint64_t n, float* out) {
  const uint64_t i = uint64_t{blockIdx.x} * kThreads + threadIdx.x;
  WaitForPrevious();
  if (i < n) out[i] = GatedUp(gate[i], up[i]);
}

// One element of a packed matrix, exactly as DequantizeRow gives it.
__device__ float ElementOf(DType type, const std::byte* panel, uint32_t packed_cols, uint32_t row,
                           uint32_t col) {
  if (!IsQuantised(type)) {
    const std::byte* at = panel + PlainAt(type, packed_cols, row, col);
    if (type == DType::kF32) return ReadAs<float>(at);
    const uint16_t bits = ReadAs<uint16_t>(at);
    return type == DType::kF16 ? HalfToFloat(bits) : __uint_as_float(uint32_t{bits} << 16);
  }
  const QuantFormat format = FormatOf(type);
  const uint32_t block = col / kBlockCols, in = col % kBlockCols;
  const uint32_t group = block / kGroupBlocks, j = block % kGroupBlocks;
  const uint32_t nb = BlocksInGroup(packed_cols / kBlockCols, group);
  const uint32_t half = in / 16, t = in % 16 / 4, shift = in % 4 * 8;
  const std::byte* base = panel + GroupAt(format, group);
  const uint32_t section = format.sections == 2 ? half : 0;
  const uint32_t word =
      ReadAs<uint32_t>(base + 4 * (((section * kPanelRows + row) * 4 + t) * nb + j));
  int32_t q = static_cast<int8_t>(word >> shift);
  if (format.sections == 1) q = static_cast<int32_t>((word >> (shift + 4 * half)) & 15u);
  if (format.high > 0) {
    const uint32_t part = format.high == 2 ? half : 0;
    const uint32_t bits =
        ReadAs<uint32_t>(base + format.HighAt(nb) + 4 * ((row * format.high + part) * nb + j));
    q |= static_cast<int32_t>(format.high == 1 ? (bits >> (shift + in / 4)) & 1u
                                               : (bits >> (shift + 2 * t)) & 3u)
         << 4;
  }
  const auto code = static_cast<float>(q - format.offset);
  if (format.header == 0) {
    const std::byte* fields = base + format.FieldsAt(nb);
    const float d = HalfToFloat(ReadAs<uint16_t>(fields + 2 * (row * nb + j)));
    if (!format.minimum) return d * code;
    return fmaf(d, code, HalfToFloat(ReadAs<uint16_t>(fields + 2 * ((kPanelRows + row) * nb + j))));
  }
  const std::byte* header = panel + HeaderAt(format, group);
  const std::byte* own = header + row * 16;
  const uint32_t sub = group % 2 * kGroupBlocks + j;
  if (type == DType::kQ6_K) {
    const float d = HalfToFloat(ReadAs<uint16_t>(header + kPanelRows * 16 + row * 2));
    return d * static_cast<float>(ReadAs<int8_t>(own + 2 * sub + half)) * code;
  }
  const float d = HalfToFloat(ReadAs<uint16_t>(own));
  const float dmin = HalfToFloat(ReadAs<uint16_t>(own + 2));
  const auto byte = [own](uint32_t i) { return uint32_t{ReadAs<uint8_t>(own + 4 + i)}; };
  const uint32_t scale =
      sub < 4 ? byte(sub) & 63u : (byte(sub + 4) & 15u) | (byte(sub - 4) >> 6 << 4);
  const uint32_t minimum =
      sub < 4 ? byte(sub + 4) & 63u : (byte(sub + 4) >> 4) | (byte(sub) >> 6 << 4);
  return fmaf(d * static_cast<float>(scale), code, -(dmin * static_cast<float>(minimum)));
}

__global__ void __launch_bounds__(kThreads) EmbedKernel(DType type, const EmbedCall call) {
  WaitForPrevious();
  const int64_t id = call.ids[blockIdx.x];
  float* row = call.out + uint64_t{blockIdx.x} * call.hidden;
  const bool held = id >= call.id_begin && id < call.id_end;
  const auto local = held ? static_cast<uint64_t>(id - call.first_id) : 0;
  const std::byte* panel = call.table + local / kPanelRows * call.panel_bytes;
  for (uint32_t i = threadIdx.x; i < call.hidden; i += kThreads) {
    row[i] = held ? ElementOf(type, panel, call.packed_cols,
                              static_cast<uint32_t>(local % kPanelRows), call.col_begin + i)
                  : 0.0f;
  }
}

uint32_t BlocksFor(uint64_t n) { return static_cast<uint32_t>((n + kThreads - 1) / kThreads); }

bool IsAligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

}  // namespace

void LaunchEmbed(DType type, const EmbedCall& call, const GpuStream& stream) {
  LaunchEarly("embedding", EmbedKernel, dim3(call.n), dim3(kThreads), 0, stream, type, call);
}

void LaunchAdd(const float* x, const float* y, uint64_t n, float* out, const GpuStream& stream) {
  if (n % 4 == 0 && IsAligned(x) && IsAligned(y) && IsAligned(out)) {
    LaunchEarly("add", AddVectors, dim3(BlocksFor(n / 4)), dim3(kThreads), 0, stream,
                reinterpret_cast<const float4*>(x), reinterpret_cast<const float4*>(y), n / 4,
                reinterpret_cast<float4*>(out));
  } else {
    LaunchEarly("add", AddKernel, dim3(BlocksFor(n)), dim3(kThreads), 0, stream, x, y, n, out);
  }
}

void LaunchAddBias(const float* bias, uint64_t n, uint64_t width, float* y,
                   const GpuStream& stream) {
  LaunchEarly("bias", AddBiasKernel, dim3(BlocksFor(n * width)), dim3(kThreads), 0, stream, bias, n,
              width, y);
}

void LaunchSwiGlu(const float* gate, const float* up, uint64_t n, float* out,
                  const GpuStream& stream) {
  LaunchEarly("SwiGLU", SwiGluKernel, dim3(BlocksFor(n)), dim3(kThreads), 0, stream, gate, up, n,
              out);
}

}  // namespace tandem::cuda
