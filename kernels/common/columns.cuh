// Column tiles of a matrix [rows, channels]: a block of 256 threads has 64 channels, eight a thread, and goes
// down 32 rows at a time. What is summed over rows stays in a thread's registers until the end.
#pragma once

#include "common/grid.cuh"
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

// --- sums over the rows of a matrix --------------------------------------------------------------------------
// Rows come in groups (images) that are summed apart, and those of a group in slices; grid (tiles * slices,
// groups). The last block of a tile adds its slices up, so the result is the same whatever the order of blocks.
// Mirrored by ColumnParams in src/ops/columns.rs.

struct Columns {
    float* partial;      // [groups, slices, tiles, sums, 64]; unused with one slice
    unsigned* counters;  // [groups, tiles]
    unsigned rows;       // of a group
    unsigned channels;
    unsigned tiles;
    unsigned slices;
    unsigned slice;  // rows of a slice; the last has what is left
    unsigned pad;
};
static_assert(sizeof(Columns) == 40, "src/ops/columns.rs mirrors this");

template <int COUNT>
struct ColumnShared {
    union {
        ColumnSums<COUNT> sums;
        float slices[4][COUNT][COLUMN_CHANNELS];
    };
    unsigned flag[4];
};
static_assert(sizeof(ColumnShared<1>) == 2064 && sizeof(ColumnShared<2>) == 4112, "src/ops/columns.rs knows these");

// This block's rows within its group.
__device__ __forceinline__ void column_rows(const Columns& c, unsigned& first, unsigned& end) {
    first = blockIdx.x / c.tiles * c.slice;
    end = c.rows - first < c.slice ? c.rows : first + c.slice;
}

// This thread's first channel.
__device__ __forceinline__ unsigned first_channel(const Columns& c) {
    return blockIdx.x % c.tiles * COLUMN_CHANNELS + column_channel();
}

// Adds the threads' `sums` of the block's rows up, and calls finish(group, channel, total of each sum) for every
// channel, in whichever block comes last.
template <int COUNT, typename Finish>
__device__ __forceinline__ void finish_columns(const Columns& c, float (&sums)[COUNT][8], ColumnShared<COUNT>& shared,
                                               Finish finish) {
    unsigned tile = blockIdx.x % c.tiles, slice = blockIdx.x / c.tiles, group = blockIdx.y;
    unsigned lane = thread() % COLUMN_CHANNELS, part = thread() / COLUMN_CHANNELS;
    unsigned channel = tile * COLUMN_CHANNELS + lane;
    float total[COUNT];
    add_rows_up(sums, shared.sums);
    if (part == 0) {
#pragma unroll
        for (int k = 0; k < COUNT; k++) total[k] = column_sum(shared.sums, k, lane);
    }
    if (c.slices > 1) {
        uint64_t stride = uint64_t(c.tiles) * COUNT * COLUMN_CHANNELS;
        float* partial = c.partial + group * c.slices * stride + uint64_t(tile) * COUNT * COLUMN_CHANNELS + lane;
        if (part == 0) {
#pragma unroll
            for (int k = 0; k < COUNT; k++) partial[slice * stride + k * COLUMN_CHANNELS] = total[k];
        }
        if (!arrive_last(c.counters + uint64_t(group) * c.tiles + tile, c.slices, shared.flag[0])) return;
#pragma unroll
        for (int k = 0; k < COUNT; k++) {
            float sum = 0.0f;
#pragma unroll 4
            for (unsigned i = part; i < c.slices; i += 4) sum += partial[i * stride + k * COLUMN_CHANNELS];
            shared.slices[part][k][lane] = sum;
        }
        __syncthreads();
        if (part == 0) {
#pragma unroll
            for (int k = 0; k < COUNT; k++)
                total[k] = (shared.slices[0][k][lane] + shared.slices[1][k][lane]) +
                           (shared.slices[2][k][lane] + shared.slices[3][k][lane]);
        }
    }
    if (part == 0 && channel < c.channels) finish(group, channel, total);
}
