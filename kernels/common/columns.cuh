// Column tiles of a matrix [rows, channels]: a block of 256 threads has 64 channels, eight a thread, and goes
// down 32 rows at a time. What is summed over rows stays in a thread's registers until the end.
#pragma once

#include "common/reduce.cuh"
#include "common/vector.cuh"

constexpr unsigned COLUMN_CHANNELS = 64, COLUMN_ROWS = 32, COLUMN_THREADS = 256;

// This thread's first channel and its row, within the tile.
__device__ __forceinline__ unsigned column_channel() { return thread() % 8 * 8; }
__device__ __forceinline__ unsigned column_row() { return thread() / 8; }

// How many of the eight channels from `channel` on exist.
__device__ __forceinline__ int own_channels(unsigned channel, unsigned channels) {
    return channel >= channels ? 0 : channels - channel < 8 ? int(channels - channel) : 8;
}

// Eight elements on their way. WHOLE: all of them exist at a multiple of 16 bytes.
template <typename T, bool WHOLE>
struct Fetched {
    Packed8<T> packed;

    __device__ __forceinline__ void load(const T* from, int) { packed = load_packed(from); }
    __device__ __forceinline__ void get(float (&values)[8]) const { unpack(packed, values); }
};

template <typename T>
struct Fetched<T, false> {
    float element[8];

    __device__ __forceinline__ void load(const T* from, int own) { load_some(from, element, own); }
    __device__ __forceinline__ void get(float (&values)[8]) const {
#pragma unroll
        for (int i = 0; i < 8; i++) values[i] = element[i];
    }
};

// COUNT sums of each of the tile's channels, one a warp.
template <int COUNT>
struct ColumnSums {
    float partial[COLUMN_THREADS / 32][COUNT][COLUMN_CHANNELS];
};

// Adds the threads' sums up as far as a warp's; ends with a barrier.
template <int COUNT>
__device__ __forceinline__ void add_rows_up(float (&sums)[COUNT][8], ColumnSums<COUNT>& scratch) {
#pragma unroll
    for (int k = 0; k < COUNT; k++)
#pragma unroll
        for (int i = 0; i < 8; i++) {
            float sum = sums[k][i];
            sum += __shfl_xor_sync(ALL_LANES, sum, 8);
            sum += __shfl_xor_sync(ALL_LANES, sum, 16);
            if (lane_index() < 8) scratch.partial[warp_index()][k][column_channel() + i] = sum;
        }
    __syncthreads();
}

// Sum `k` of a channel of the tile over all rows of the block.
template <int COUNT>
__device__ __forceinline__ float column_sum(const ColumnSums<COUNT>& scratch, int k, unsigned channel) {
    float sum = 0.0f;
#pragma unroll
    for (unsigned warp = 0; warp < COLUMN_THREADS / 32; warp++) sum += scratch.partial[warp][k][channel];
    return sum;
}
