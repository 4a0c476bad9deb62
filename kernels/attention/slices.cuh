// Heads of up to 512 columns, whose keys and values do not fit in shared memory: rows stream by in slices of
// 8 KiB, three on their way. A block has 8 warps. Shared memory stays below the 99 KiB of sm_86, sm_89 and sm_120.
#pragma once

#include "attention/tiles.cuh"

constexpr int WIDE = 512, WIDE_THREADS = 256;
// Rows of a tile that streams by, as 8 slices of 64 columns or as 8 of 16 rows of one half of the columns.
constexpr int WIDE_TILE = 64;
constexpr int SLICE = 4096, SLICE_STAGES = 3;

template <typename T>
struct Slices {
    T (&stages)[SLICE_STAGES][SLICE];
    int stage, coming;

    __device__ __forceinline__ explicit Slices(T (&stages)[SLICE_STAGES][SLICE])
        : stages(stages), stage(0), coming(0) {}

    // Calls load(number, memory) for the slice that is loaded next.
    template <typename Load>
    __device__ __forceinline__ void load_next(Load load) {
        load(coming, stages[coming % SLICE_STAGES]);
        coming++;
        commit_async();
    }

    template <typename Load>
    __device__ __forceinline__ void start(Load load) {
        for (int i = 0; i < SLICE_STAGES - 1; i++) load_next(load);
    }

    // The next slice, once it is there.
    template <typename Load>
    __device__ __forceinline__ const T* next(Load load) {
        wait_async<SLICE_STAGES - 2>();
        // The stage loaded next is the one that every warp has finished with before this barrier.
        __syncthreads();
        load_next(load);
        const T* slice = stages[stage];
        stage = stage == SLICE_STAGES - 1 ? 0 : stage + 1;
        return slice;
    }
};

// Starts the copy of slice `slice` of 64 columns of the tile of rows from `first` on.
template <typename T>
__device__ __forceinline__ void load_columns(T* to, const Rows& rows, const T* from, unsigned first, int slice,
                                             unsigned width) {
    load_rows<T, WIDE_TILE, 64, WIDE_THREADS>(to, from, first, rows.rows, rows.stride, slice * 64, width);
}

// Starts the copy of slice `slice` of 16 rows: half slice % 2 of the columns.
template <typename T>
__device__ __forceinline__ void load_half_rows(T* to, const Rows& rows, const T* from, unsigned first, int slice,
                                               unsigned width) {
    load_rows<T, 16, 256, WIDE_THREADS>(to, from, first + slice / 2 * 16, rows.rows, rows.stride, slice % 2 * 256,
                                        width);
}

// sums += rows `row` to `row + 15` of `own` . rows `column` on of slice `slice` of columns, transposed.
template <typename T, int N>
__device__ __forceinline__ void add_columns(float (&sums)[N][4], const T* own, int row, const T* tile, int column,
                                            int slice) {
    static_assert(N % 2 == 0, "ldmatrix loads 16 rows");
#pragma unroll
    for (int d = 0; d < 4; d++) {
        unsigned a[4];
        load_left<WIDE>(a, own, row, slice * 8 + d * 2);
#pragma unroll
        for (int j = 0; j < N / 2; j++) {
            unsigned b[4];
            load_right<64>(b, tile, column + j * 16, d * 2);
            multiply_pair<T>(sums[2 * j], sums[2 * j + 1], a, b);
        }
    }
}

// A warp's sums of all rows of a block and 64 columns: 32 of each half, so that every warp has work in each slice.
template <typename T, int MI>
struct WideSums {
    float sums[MI][8][4];

    __device__ __forceinline__ void clear_all() {
#pragma unroll
        for (int i = 0; i < MI; i++) clear(sums[i]);
    }

    // The chunk of columns that sums[.][n] are.
    __device__ __forceinline__ static int chunk_of(int n) { return n / 4 * 32 + warp_index() * 4 + n % 4; }

    // += weights . rows: the weights of 16 streamed rows, the slice of these rows and this half.
    template <int HALF>
    __device__ __forceinline__ void add_rows(const unsigned (&weights)[MI][4], const T* slice) {
#pragma unroll
        for (int n = 0; n < 2; n++) {
            unsigned b[4];
            load_right_rows<256>(b, slice, 0, warp_index() * 4 + n * 2);
#pragma unroll
            for (int i = 0; i < MI; i++)
                multiply_pair<T>(sums[i][HALF * 4 + 2 * n], sums[i][HALF * 4 + 2 * n + 1], weights[i], b);
        }
    }

    // Writes row lane / 4 + 8 `r` of product i, times `factor`, to a tile.
    __device__ __forceinline__ void store_row(T* tile, int i, int r, float factor) const {
#pragma unroll
        for (int n = 0; n < 8; n++)
            store_pair<WIDE>(tile, i * 16 + lane_index() / 4 + r * 8, chunk_of(n), sums[i][n][2 * r] * factor,
                             sums[i][n][2 * r + 1] * factor);
    }
};

// Copies a tile of COUNT rows to the rows from `first` on.
template <int COUNT, typename T>
__device__ __forceinline__ void copy_rows(T* to, const T* tile, unsigned first, unsigned rows, unsigned stride,
                                          unsigned width) {
    for (int item = thread(); item < COUNT * WIDE / 8; item += WIDE_THREADS) {
        int row = item / (WIDE / 8), chunk = item % (WIDE / 8);
        if (first + row < rows && chunk * 8 < width)
            copy_chunk<WIDE>(to + uint64_t(first + row) * stride + chunk * 8, tile, row, chunk);
    }
}
