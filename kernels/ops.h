// What a device can compute: the interface between the executor and the kernels. One implementation
// a back end: kernels/ref (the naive oracle), kernels/cpu (vectorised), kernels/cuda.
//
// Activations are f32, row-major; a "row" is one token. Numerics (kernels/README.md): on one
// instruction tier every output element is summed in an order fixed by its length and weight type
// alone, never by how many rows share the call, how they were chunked, or how many threads ran.
//
// Memory: matrices, rows and KV are memory of the Ops' device. Spans, tensor views and the page
// tables of sequences are the host's, and have been read when a call returns; what Pack fills is
// the host's too. Order: a call may return before its work is done, but the work of one Ops is done
// in the order of the calls; Finish waits for it. The CPU's calls are synchronous. All validate
// their shapes with Check; one thread at a time uses an Ops.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "engine/device/device.h"
#include "engine/model/model.h"

namespace tandem {

// Whether weights meet activations as narrow as themselves, or f32 ones. Narrow is int8 for
// quantised weights (blocks of 32 with an f32 scale, int8_block.h) and BF16, rounded to nearest
// even, for BF16 ones. F32 and F16 weights always meet f32 (but see PrefillProducts).
enum class ActivationType : uint8_t { kInt8, kF32 };
const char* ToString(ActivationType type);  // "int8", "f32"

// How exact attention's products are: as f32, for which tensor cores take queries and softmax
// weights split in two f16 each; or with each of them rounded once to f16, which CUDA alone offers.
// Keys and values are f16 in any case, sums f32.
enum class AttentionPrecision : uint8_t { kSplit, kHalf };
const char* ToString(AttentionPrecision precision);  // "split", "half"

// What rows of activations become before they meet weights.
enum class RowForm : uint8_t { kF32, kInt8, kBf16 };
RowForm FormFor(ActivationType activations, DType weights);

// How many int8 numbers stand for an activation. The second is int8 again, of what the first left
// over: some 14 bits in all for twice the multiplications. Other forms have no parts.
enum class Int8Parts : uint8_t { kOne = 1, kTwo = 2 };
// What enters the down projection, gate times up, has the widest range in a model: in one part it
// would make the largest share of the error of int8 activations.
inline constexpr Int8Parts kDownInputParts = Int8Parts::kTwo;

// What multiplies weights with many rows on a GPU: kernels of this project, whose bits depend on no
// number of rows, or cuBLASLt, for which both sides are rounded to BF16 (kernels/README.md).
enum class PrefillProducts : uint8_t { kOwn, kCublasLt };
const char* ToString(PrefillProducts products);  // "own", "cublaslt"

// A half-open rectangle of a weight matrix: rows are outputs, columns inputs.
// Column bounds are multiples of the type's block; row bounds are arbitrary.
struct MatrixSlice {
  uint64_t row_begin = 0, row_end = 0;
  uint64_t col_begin = 0, col_end = 0;
  uint64_t rows() const { return row_end - row_begin; }
  uint64_t cols() const { return col_end - col_begin; }
};

// A slice of a weight matrix in the back end's own layout, in memory given by the caller. The
// layout takes as many bytes as the stored form, rounded up to whole panels of rows, and its bytes
// mean the same wherever they lie: it is packed in the host's memory and copied to the device that
// multiplies with it (at load, or by a FETCH).
struct PackedMatrix {
  std::byte* data = nullptr;
  uint64_t bytes = 0;
  DType type = DType::kF32;
  MatrixSlice slice;  // which part of the tensor it holds
};

// Rows of activations prepared once for several products. They meet weights of their own form, and
// of kF32.
struct PreparedRows {
  const float* f32 = nullptr;         // (n, cols), stride cols
  const std::byte* narrow = nullptr;  // back end's form of the same rows; null for kF32
  RowForm form = RowForm::kF32;
  Int8Parts parts = Int8Parts::kOne;  // of kInt8
  uint64_t n = 0;
  uint64_t cols = 0;
};

// y(n, slice.rows) = x(n, slice.cols) * W[slice]^T. `slice` is in the tensor's own coordinates and
// lies within w.slice; y has y_stride floats between rows.
struct MatMulTask {
  const PackedMatrix* w = nullptr;
  MatrixSlice slice;
  float* y = nullptr;
  uint64_t y_stride = 0;
};

inline constexpr uint32_t kPageTokens = 64;      // tokens in a page of KV
inline constexpr uint32_t kAttentionFold = 256;  // positions folded together by attention

// How a head's keys lie in a page: (kPageTokens, head_dim), or (head_dim, kPageTokens), where the
// scores of neighbouring positions are neighbours.
enum class KeyOrder : uint8_t { kByPosition, kByColumn };

// One device's share of one ATTENTION block's KV cache, in f16. Page p starts at base + p * stride
// and holds K of kv_heads heads, each as Ops::key_order() says, then V (kv_heads, kPageTokens,
// head_dim).
struct KvView {
  std::byte* base = nullptr;
  uint64_t stride = 0;  // bytes from page to page
  uint32_t kv_heads = 0;
  uint32_t head_dim = 0;
  // Memory of the same device that Attention may work in. With less it does the same, slower.
  std::byte* room = nullptr;
  uint64_t room_bytes = 0;
};

// The rows of one sequence in a step: rows [first_row, first_row + n_rows) at positions
// start, start+1, ...; pages[i] holds positions [i*kPageTokens, (i+1)*kPageTokens).
struct SequenceRows {
  uint32_t first_row = 0;
  uint32_t n_rows = 0;
  uint32_t start = 0;
  const int32_t* pages = nullptr;
};

// Pair i of a head turns by position * frequency_i.
struct RopeParams {
  uint32_t rope_dim = 0;
  float theta = 10000.0f;  // frequency_i = theta^(-2i / rope_dim) / scale, unless given
  float scale = 1.0f;
  bool interleaved = true;  // pairs (2i, 2i+1); otherwise (i, i + rope_dim/2)
  // (rope_dim / 2) radians a position, in place of theta and scale; empty: those.
  std::span<const double> frequencies;
  float magnitude = 1.0f;  // the rotated part of q and k is multiplied by it (YaRN)
};

// A value of a row and its column, among the largest of the row.
struct TopEntry {
  float value = 0;
  int32_t id = 0;
};
inline constexpr int32_t kNoEntry = -1;     // id: the row has no more
inline constexpr int32_t kNotANumber = -2;  // id, of all of a row's entries: it has a NaN
inline constexpr uint32_t kMostTopK = 64;

// The rows of one microbatch, as Embed, RopeAndStore and Attention are told of them.
struct StepRows {
  std::span<const int32_t> ids;
  std::span<const SequenceRows> sequences;
};

// The device's tables of one recorded step.
class RecordedRows {
 public:
  virtual ~RecordedRows() = default;
};

// Ops of a device whose queues can be recorded (engine/device/recorder.h). Kernels of a recorded
// step read what differs from one replay to the next - ids, positions, pages, lengths - from tables
// in the device's memory, and leave early where a shorter sequence has no work for them.
class OpsRecorder {
 public:
  virtual ~OpsRecorder() = default;
  // From here to End the ops are being recorded. Called before the queues' own recording begins, so
  // it may allocate. Spans of ids and sequences handed to ops are those of `rows`; none of their
  // sequences will be longer than `positions`, new rows included. Throws Error(kDevice).
  virtual void Begin(std::span<const StepRows> rows, uint32_t positions) = 0;
  virtual std::unique_ptr<RecordedRows> End() = 0;
  // Asks for the tables to be filled for one replay, which is asked for next. As many microbatches,
  // and rows in each, as were recorded. Spans have been read on return.
  virtual void Fill(RecordedRows& recorded, std::span<const StepRows> rows) = 0;
};

class Ops {
 public:
  virtual ~Ops() = default;

  // "ref", "cpu/avx2", ...: recorded with every result.
  virtual std::string name() const = 0;
  virtual ActivationType activations() const = 0;

  // Bytes a packed slice of this type needs, and the packing itself, into host memory (out.data,
  // given by the caller).
  virtual uint64_t PackedBytes(DType type, const MatrixSlice& slice) const = 0;
  virtual void Pack(const TensorView& tensor, PackedMatrix& out) = 0;

  // Bytes of scratch that PrepareRows needs for n rows, in any number of parts.
  virtual uint64_t PreparedBytes(uint64_t n, uint64_t cols) const = 0;
  // `weight_type` says what the rows will meet. `x` must outlive the result.
  virtual PreparedRows PrepareRows(const float* x, uint64_t n, uint64_t cols, DType weight_type,
                                   Int8Parts parts, std::byte* scratch) = 0;
  // All tasks read the same rows; one parallel region. Their weights may differ in type where the
  // form of the rows serves them all.
  virtual void MatMul(const PreparedRows& x, std::span<const MatMulTask> tasks) = 0;

  // out (n, hidden) = rows `ids` of the table, zero where an id lies outside `slice`'s rows.
  virtual void Embed(const PackedMatrix& table, const MatrixSlice& slice,
                     std::span<const int32_t> ids, float* out) = 0;
  // y = x / rms(x) * w, rms over each row: sqrt(mean(x^2) + eps).  x, y (n, hidden); w (hidden).
  // y may be x. A head's norm is this with a row for each head.
  virtual void RmsNorm(const float* x, const float* w, float eps, uint64_t n, uint64_t hidden,
                       float* y) = 0;
  // out = x + y elementwise, n elements; out may be x.
  virtual void Add(const float* x, const float* y, uint64_t n, float* out) = 0;
  // sum = x + y, then norm = sum / rms(sum) * w: to the bit what Add and RmsNorm give one after the
  // other, in one pass where a back end can. All (n, hidden); w (hidden). sum may be x or y, and so
  // may norm, whole; they are not one.
  virtual void AddNorm(const float* x, const float* y, const float* w, float eps, uint64_t n,
                       uint64_t hidden, float* sum, float* norm);
  // Adds a bias (width) to each row of y (n, width), in place.
  virtual void AddBias(const float* bias, uint64_t n, uint64_t width, float* y) = 0;
  // out = silu(gate) * up elementwise, n elements; out may be gate.
  virtual void SwiGlu(const float* gate, const float* up, uint64_t n, float* out) = 0;
  // gate = silu(gate) * up, (n, cols) each, prepared for products with weights of this type: to the
  // bit what SwiGlu and PrepareRows give. A back end that does both in one pass may leave gate as
  // it was where the result has a narrow form.
  virtual PreparedRows PrepareSwiGlu(float* gate, const float* up, uint64_t n, uint64_t cols,
                                     DType weight_type, Int8Parts parts, std::byte* scratch);

  // How RopeAndStore leaves keys in their pages, and Attention finds them.
  virtual KeyOrder key_order() const = 0;
  // Rotates q (n, q_heads*hd) and k (n, kv_heads*hd) in place by each row's position, then stores k
  // and v (n, kv_heads*hd), rounded to f16, into the pages.
  virtual void RopeAndStore(float* q, float* k, const float* v, uint32_t q_heads,
                            const RopeParams& rope, std::span<const SequenceRows> sequences,
                            const KvView& kv) = 0;
  // out (n, q_heads*hd) = softmax(q k^T / sqrt(hd), causal) v over each row's own sequence, folding
  // blocks of kAttentionFold positions in order (online softmax between blocks). With a window w >
  // 0 the row at position i sees positions (i - w, i]; with 0 all of [0, i]. Blocks are cut at
  // multiples of kAttentionFold either way; those that a row does not see are left out.
  virtual void Attention(const float* q, uint32_t q_heads, uint32_t window,
                         std::span<const SequenceRows> sequences, const KvView& kv, float* out) = 0;

  // out (n, k) = the k largest values of each row of x (n, width), best first, equal ones by
  // column; k is 1 to kMostTopK. `scratch` has TopKBytes, at a multiple of 16.
  virtual uint64_t TopKBytes(uint64_t n, uint32_t width, uint32_t k) const = 0;
  virtual void TopK(const float* x, uint64_t n, uint32_t width, uint32_t k, std::byte* scratch,
                    TopEntry* out) = 0;

  // x (n) = 0.
  virtual void Zero(float* x, uint64_t n) = 0;
  // Copies `rows` runs of `width` floats; strides in floats. The two do not overlap.
  virtual void CopyRows(const float* from, uint64_t from_stride, float* to, uint64_t to_stride,
                        uint64_t width, uint64_t rows) = 0;
  // Waits for all that was asked. Throws Error(kDevice) naming the op that failed; a device that
  // has failed once fails every call after.
  virtual void Finish() = 0;
  // Null where steps cannot be recorded. Ask anew before each use.
  virtual OpsRecorder* recorder() { return nullptr; }
};

struct CpuOpsOptions {
  ActivationType activations = ActivationType::kInt8;
  // "auto" takes the best tier of this processor; "portable", "avx2", "avx512", "avx512_bf16"
  // or "amx" force one. An unknown tier, or one that the processor lacks, is
  // Error(kInvalidArgument) listing those it has.
  std::string tier = "auto";
  // By column is the faster; by position is how GPUs keep keys, to and from which KV may move.
  KeyOrder key_order = KeyOrder::kByColumn;
};

class ThreadPool;
// `pool` outlives the result.
std::unique_ptr<Ops> MakeCpuOps(ThreadPool& pool, const CpuOpsOptions& options);
// The oracle: plain loops, one thread, no packing beyond a copy. Same activation modes.
std::unique_ptr<Ops> MakeRefOps(ActivationType activations);

}  // namespace tandem
