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

}  // namespace emulator
