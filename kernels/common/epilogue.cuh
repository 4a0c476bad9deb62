// What a product does to its sums before it writes them: residual + scale * activation(sum + bias + per_image).
// Mirrored by EpilogueParams in src/ops/gpu.rs.
#pragma once

#include "common/math.cuh"
#include "common/vector.cuh"

struct Epilogue {
    const float* bias;      // [columns] or absent
    const void* per_image;  // [images, columns] or absent; with one row for all, rows_per_image is 2^32 - 1
    const void* residual;   // shaped like the result, or absent
    unsigned rows_per_image;
    unsigned activation;
    float slope;
    float scale;
    // every address and row is a multiple of 16 bytes
    unsigned aligned;
    unsigned pad;
};
static_assert(sizeof(Epilogue) == 48, "src/ops/gpu.rs mirrors this");

// Adds eight consecutive elements of a tensor that may be absent.
template <typename T>
__device__ __forceinline__ void add_8(float (&v)[8], const void* tensor, uint64_t first, int own, bool whole) {
    if (!tensor) return;
    float x[8];
    const T* at = static_cast<const T*>(tensor) + first;
    if (whole)
        load_8(at, x);
    else
        load_some(at, x, own);
#pragma unroll
    for (int i = 0; i < 8; i++) v[i] += x[i];
}

// Writes columns `column` to `column + 7`, those below `columns`, of the row that starts at `row`.
template <typename T>
__device__ __forceinline__ void write_8(void* out, const float (&v)[8], uint64_t row, unsigned column,
                                        unsigned columns, bool aligned) {
    if (column >= columns) return;
    T* to = static_cast<T*>(out) + row + column;
    if (aligned && columns - column >= 8)
        store_8(to, v);
    else
        store_some(to, v, columns - column < 8 ? int(columns - column) : 8);
}

// Finishes the sums of columns `column` to `column + 7` of `row` and writes those below `columns`.
template <typename T>
__device__ __forceinline__ void finish_8(const Epilogue& e, void* out, float (&v)[8], unsigned row, unsigned column,
                                         unsigned columns) {
    if (column >= columns) return;
    int own = columns - column < 8 ? int(columns - column) : 8;
    bool whole = e.aligned && own == 8;
    uint64_t first = uint64_t(row) * columns + column;
    add_8<float>(v, e.bias, column, own, whole);
    if (e.per_image) add_8<T>(v, e.per_image, uint64_t(row / e.rows_per_image) * columns + column, own, whole);
    activate_all(v, e.activation, e.slope);
#pragma unroll
    for (int i = 0; i < 8; i++) v[i] *= e.scale;
    add_8<T>(v, e.residual, first, own, whole);
    write_8<T>(out, v, first - column, column, columns, e.aligned);
}
