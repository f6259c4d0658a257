// The kernels of the GPU's probe: reading and copying memory 16 bytes a thread at a time, filling
// it with numbers to multiply, and doing nothing.
//
// Thread rule: one host thread, with the GPU current. `stream` is the runtime's.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tandem::cuda {

// Reads `bytes` (a multiple of 16, aligned so) once; `sink` hardly ever gets a word that depends on
// all. `sms`: the multiprocessors to fill.
void LaunchReadProbe(const void* from, size_t bytes, uint32_t* sink, int sms, void* stream);
// Copies them to memory apart from them.
void LaunchCopyProbe(const void* from, void* to, size_t bytes, int sms, void* stream);
// Word i of `words` = a hash of i, with the bits of `keep` kept of it and those of `set` set.
void LaunchFillProbe(uint32_t* words, size_t n, uint32_t keep, uint32_t set, int sms, void* stream);
// One thread that does nothing.
void LaunchNothing(void* stream);

}  // namespace tandem::cuda
