// What the attention kernels share: their params, tiles of rows in shared memory, fragments of tensor-core
// products and the softmax's state.
#pragma once

#include "common/async_copy.cuh"
#include "common/kernel.cuh"
#include "common/math.cuh"
#include "common/mma.cuh"
#include "common/reduce.cuh"
#include "common/vector.cuh"

// Rows of one head, elements of T: row r of head h of image n starts at data + (n * rows + r) * stride + h * width.
struct Rows {
    const void* data;
    unsigned rows;
    unsigned stride;
};

struct AttentionParams {
    void* out;         // [n, l, heads * width]
    float* sum_log;    // log-sum-exp of the scaled scores, [n, heads, l], or absent
    Rows q, k, v;
    unsigned heads;
    unsigned width;
    // log2(e) / sqrt(width): the softmax is in powers of two
    float scale;
    unsigned causal;
};
static_assert(sizeof(AttentionParams) == 80, "src/ops/attention/cuda.rs mirrors this");

// A pass of the backward: from the gradient of out, that of q, or those of k and v.
struct AttentionBackwardParams {
    Rows q, k, v;
    Rows gradient;          // of out
    Rows first, second;     // written: the gradient of q, or those of k and v; no data where it is not wanted
    const float* sum_log;   // [n, heads, l]
    const float* products;  // of each row of out with its gradient, [n, heads, l]
    unsigned heads;
    unsigned width;
    float scale;
    unsigned causal;
};
static_assert(sizeof(AttentionBackwardParams) == 128, "src/ops/attention/cuda.rs mirrors this");

constexpr float LN_2 = 0.69314718055994531f, LOG2_E = 1.4426950408889634f;

// NVRTC has no headers that name it.
__device__ __forceinline__ float minus_infinity() { return __uint_as_float(0xff800000u); }

// The first element of head `head` of image `image`.
template <typename T>
__device__ __forceinline__ const T* head_of(const Rows& r, unsigned image, unsigned head, unsigned width) {
    return static_cast<const T*>(r.data) + uint64_t(image) * r.rows * r.stride + head * width;
}

// Offset in elements of chunk `chunk` (eight halves) of row `row` in a tile of rows of WIDTH halves. The eight
// rows that ldmatrix reads at once lie in different banks.
template <int WIDTH>
__device__ __forceinline__ constexpr int swizzled(int row, int chunk) {
    static_assert(WIDTH % 64 == 0, "a row has whole groups of eight chunks");
    return row * WIDTH + ((chunk ^ (row & 7)) * 8);
}

// Starts the copy of columns `column` to `column + WIDTH - 1` of rows `first` to `first + COUNT - 1` into a tile.
// Rows from `rows` on and columns from `width` on become zeros.
template <typename T, int COUNT, int WIDTH, int THREADS>
__device__ __forceinline__ void load_rows(T* tile, const T* from, unsigned first, unsigned rows, unsigned stride,
                                          unsigned column, unsigned width) {
    constexpr int CHUNKS = WIDTH / 8;
    static_assert(COUNT * CHUNKS % THREADS == 0 && THREADS % CHUNKS == 0, "every thread copies as many chunks");
    int chunk = thread() % CHUNKS;
    unsigned at = column + chunk * 8;
#pragma unroll
    for (int i = 0; i < COUNT * CHUNKS / THREADS; i++) {
        int row = i * (THREADS / CHUNKS) + thread() / CHUNKS;
        bool inside = first + row < rows && at < width;
        copy_async_16(tile + swizzled<WIDTH>(row, chunk), from + (inside ? uint64_t(first + row) * stride + at : 0),
                      inside ? 16 : 0);
    }
}

// A of m16n8k16: rows `row` to `row + 15`, columns of chunks `chunk` and `chunk + 1`.
template <int WIDTH, typename T>
__device__ __forceinline__ void load_left(unsigned (&a)[4], const T* tile, int row, int chunk) {
    int lane = lane_index();
    load_matrix_x4(a, tile + swizzled<WIDTH>(row + lane % 16, chunk + lane / 16));
}

// B of two products, tile^T: n are rows `row` to `row + 15`, k the columns of chunks `chunk` and `chunk + 1`.
// The halves of `b` belong to rows + 0 and + 8.
template <int WIDTH, typename T>
__device__ __forceinline__ void load_right(unsigned (&b)[4], const T* tile, int row, int chunk) {
    int lane = lane_index();
    load_matrix_x4(b, tile + swizzled<WIDTH>(row + lane / 16 * 8 + lane % 8, chunk + lane / 8 % 2));
}

// B of two products, the tile itself: k are rows `row` to `row + 15`, n the columns of chunks `chunk` and
// `chunk + 1`, one half of `b` each.
template <int WIDTH, typename T>
__device__ __forceinline__ void load_right_rows(unsigned (&b)[4], const T* tile, int row, int chunk) {
    int lane = lane_index();
    load_matrix_x4_transposed(b, tile + swizzled<WIDTH>(row + lane % 16, chunk + lane / 16));
}

// c[0] += a . b[0..2], c[1] += a . b[2..4]
template <typename T>
__device__ __forceinline__ void multiply_pair(float (&low)[4], float (&high)[4], const unsigned (&a)[4],
                                              const unsigned (&b)[4]) {
    unsigned first[2] = {b[0], b[1]}, second[2] = {b[2], b[3]};
    mma_m16n8k16<T>(low, a, first);
    mma_m16n8k16<T>(high, a, second);
}

// Two neighbouring [16, 8] sums as the A [16, 16] of the next product: the registers already lie as it wants.
template <typename T>
__device__ __forceinline__ void as_left(unsigned (&a)[4], const float (&low)[4], const float (&high)[4]) {
    a[0] = pack_pair<T>(low[0], low[1]);
    a[1] = pack_pair<T>(low[2], low[3]);
    a[2] = pack_pair<T>(high[0], high[1]);
    a[3] = pack_pair<T>(high[2], high[3]);
}

template <int N>
__device__ __forceinline__ void clear(float (&sums)[N][4]) {
#pragma unroll
    for (int i = 0; i < N; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) sums[i][j] = 0.0f;
}

// Over the four lanes that share a row of sums.
__device__ __forceinline__ float quad_max(float value) {
    value = fmaxf(value, __shfl_xor_sync(ALL_LANES, value, 1));
    return fmaxf(value, __shfl_xor_sync(ALL_LANES, value, 2));
}
__device__ __forceinline__ float quad_sum(float value) {
    value += __shfl_xor_sync(ALL_LANES, value, 1);
    return value + __shfl_xor_sync(ALL_LANES, value, 2);
}

// Writes a pair of neighbouring elements of a tile: columns 2(lane % 4) of chunk `chunk`.
template <int WIDTH, typename T>
__device__ __forceinline__ void store_pair(T* tile, int row, int chunk, float low, float high) {
    *reinterpret_cast<unsigned*>(tile + swizzled<WIDTH>(row, chunk) + lane_index() % 4 * 2) = pack_pair<T>(low, high);
}

// Copies chunk `chunk` of row `row` of a tile to memory.
template <int WIDTH, typename T>
__device__ __forceinline__ void copy_chunk(T* to, const T* tile, int row, int chunk) {
    store_16_bytes(to, load_16_bytes(tile + swizzled<WIDTH>(row, chunk)));
}
