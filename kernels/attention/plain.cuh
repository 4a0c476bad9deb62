// Products of 64 x 64 tiles in f32 by 256 threads, 4 x 4 sums each, for any width and alignment.
#pragma once

#include "attention/tiles.cuh"

constexpr int PLAIN = 64, PLAIN_K = 16, PLAIN_THREADS = 256;
// 4 floats of padding put neighbouring rows in different banks.
constexpr int PLAIN_ROW = PLAIN + 4;

struct PlainShared {
    // all [k][row]: what is summed over runs down
    float a[PLAIN_K][PLAIN_ROW];
    float b[PLAIN_K][PLAIN_ROW];
    float weights[PLAIN][PLAIN_ROW];
};
static_assert(sizeof(PlainShared) == 26112, "src/ops/attention/plan.rs knows this");

// The rows of one head of one image.
template <typename T>
struct PlainRows {
    const T* data;
    unsigned rows, stride, width;

    __device__ __forceinline__ PlainRows(const Rows& r, unsigned image, unsigned head, unsigned width)
        : data(head_of<T>(r, image, head, width)), rows(r.rows), stride(r.stride), width(width) {}

    __device__ __forceinline__ float at(unsigned row, unsigned column) const {
        return row < rows && column < width ? to_f32(data[uint64_t(row) * stride + column]) : 0.0f;
    }
};

// sums[i][j] += sum over k of a[k][row + i] * b[k][column + j], this thread's 4 x 4 of the tile.
__device__ __forceinline__ void add_products(float (&sums)[4][4], const float (&a)[PLAIN_K][PLAIN_ROW],
                                             const float (&b)[PLAIN_K][PLAIN_ROW]) {
    int row = thread() / 16 * 4, column = thread() % 16 * 4;
#pragma unroll 4
    for (int k = 0; k < PLAIN_K; k++)
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int j = 0; j < 4; j++) sums[i][j] += a[k][row + i] * b[k][column + j];
}

// sums += a b^T over the whole width: rows from `first_a` and from `first_b` on.
template <typename T>
__device__ __forceinline__ void add_rows_by_rows(float (&sums)[4][4], PlainShared& shared, const PlainRows<T>& a,
                                                 unsigned first_a, const PlainRows<T>& b, unsigned first_b) {
    for (unsigned d = 0; d < a.width; d += PLAIN_K) {
#pragma unroll
        for (int i = 0; i < PLAIN * PLAIN_K / PLAIN_THREADS; i++) {
            int item = i * PLAIN_THREADS + thread(), row = item / PLAIN_K, k = item % PLAIN_K;
            shared.a[k][row] = a.at(first_a + row, d + k);
            shared.b[k][row] = b.at(first_b + row, d + k);
        }
        __syncthreads();
        add_products(sums, shared.a, shared.b);
        __syncthreads();
    }
}

// sums += weights . b: `weights` are this thread's 4 x 4 of a [64, 64] tile, b the 64 rows from `first` on, of
// which the columns from `column` on are made.
template <typename T>
__device__ __forceinline__ void add_weights_by_rows(float (&sums)[4][4], PlainShared& shared,
                                                    const float (&weights)[4][4], const PlainRows<T>& b,
                                                    unsigned first, unsigned column) {
    int row = thread() / 16 * 4, lane = thread() % 16 * 4;
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) shared.weights[lane + j][row + i] = weights[i][j];
#pragma unroll
    for (int k0 = 0; k0 < PLAIN; k0 += PLAIN_K) {
#pragma unroll
        for (int i = 0; i < PLAIN * PLAIN_K / PLAIN_THREADS; i++) {
            int item = i * PLAIN_THREADS + thread(), k = item / PLAIN, at = item % PLAIN;
            shared.b[k][at] = b.at(first + k0 + k, column + at);
        }
        __syncthreads();
        add_products(sums, reinterpret_cast<const float(&)[PLAIN_K][PLAIN_ROW]>(shared.weights[k0]), shared.b);
        __syncthreads();
    }
}
