# The CUDA back end, but for its runtime: compiled by nvcc, and as plain C++ for the emulation.
set(cuda_kernel_sources
  attention.cu
  attention_tiles.cc
  cuda_ops.cc
  matmul_bf16.cu
  matmul_f32.cu
  matmul_int8.cu
  pack.cc
  prefill_bf16.cu
  prefill_int8.cu
  prepare.cu
  probe_kernels.cu
  rope.cu
  rows.cu
  step_tables.cc)
