// What the wrappers in common/ call for what PTX does on a GPU.
#pragma once

#include "cuda.h"

namespace emulator {

float f16_to_f32(unsigned short bits);
unsigned short f32_to_f16(float value);

/// One lane's registers of mma.m16n8k16: a, b packed halves, c in f32, summed into.
struct Mma {
    unsigned a[4], b[2];
    float c[4];
};
void mma_f16(Mma& mma, Site site);
void mma_bf16(Mma& mma, Site site);

/// ldmatrix.x`count`: lane 8m + r gives row r (16 bytes of shared memory) of matrix m.
void load_matrices(unsigned* registers, const void* row, unsigned count, bool transposed, Site site);

/// sm_90's mbarriers: arrivals and bytes that copies bring; see async.cpp.
void mbarrier_init(void* at, unsigned arrivals, Site site);
void mbarrier_fence();
void mbarrier_arrive(void* at, unsigned bytes, Site site);
void mbarrier_wait(void* at, unsigned parity, Site site);

/// TMA: the box of `map` at `first` to shared memory, counted by the mbarrier `at`.
void copy_box(void* shared, const void* map, void* at, const int* first, unsigned rank, Site site);

/// fence.proxy.async: what this warp wrote to shared memory is shown to wgmma.
void fence_async();

unsigned shared_offset(const void* shared);

/// One thread's part of wgmma.m64nNk16 with N = 2 `count`: it has the sums when wgmma_wait says so.
void wgmma_fence(Site site);
void wgmma(float* sum, unsigned count, uint64_t a, uint64_t b, bool keep, bool bf16, Site site);
/// The same for m64n64k16 with A in registers, as mma.m16n8k16 has it, and rows of a tile as B.
void wgmma_rows(float* sum, const unsigned* a, uint64_t b, bool keep, bool bf16, Site site);
void wgmma_commit(Site site);
void wgmma_wait(unsigned groups_left, Site site);

}  // namespace emulator
