// Sums and maxima over a warp and over a block of up to 32 whole warps.
#pragma once

#include "common/kernel.cuh"

constexpr unsigned ALL_LANES = 0xffffffffu;

__device__ __forceinline__ float warp_sum(float value) {
#pragma unroll
    for (int bits = 16; bits > 0; bits /= 2) value += __shfl_xor_sync(ALL_LANES, value, bits);
    return value;
}

__device__ __forceinline__ float warp_max(float value) {
#pragma unroll
    for (int bits = 16; bits > 0; bits /= 2) value = fmaxf(value, __shfl_xor_sync(ALL_LANES, value, bits));
    return value;
}

// Scratch of a block reduction, in shared memory.
struct Reduction {
    float partial[32];
};

// The sum over the block, in every thread. Ends with a barrier: the scratch may be used again at once.
__device__ __forceinline__ float block_sum(float value, Reduction& scratch) {
    value = warp_sum(value);
    if (lane_index() == 0) scratch.partial[warp_index()] = value;
    __syncthreads();
    float total = lane_index() < blockDim.x / 32 ? scratch.partial[lane_index()] : 0.0f;
    total = warp_sum(total);
    __syncthreads();
    return total;
}

__device__ __forceinline__ float block_max(float value, Reduction& scratch) {
    value = warp_max(value);
    if (lane_index() == 0) scratch.partial[warp_index()] = value;
    __syncthreads();
    float top = warp_max(scratch.partial[lane_index() < blockDim.x / 32 ? lane_index() : 0]);
    __syncthreads();
    return top;
}
