// Linear layers on sm_90a: out = epilogue(a . b^T), and the gated GELU of the transformers' feed-forward.
//
// a [m, k], b [n, k] => out [m, n]; gated: b = [value | gate] [2h, k] => out [m, h]. k is a multiple of 8.
// Tile 128 x BN by 384 threads; see common/specialised.cuh. With a gate the first half of a tile's columns
// are values and the second half their gates. Moves (m + n) * k + m * n elements at least.
// architectures: 90a
#include "common/epilogue.cuh"
#include "common/kernel.cuh"
#include "common/specialised.cuh"

struct GemmSm90Params {
    TensorMap a;  // [m, k] in boxes of [128, 64]
    TensorMap b;  // [n, k] in boxes of [BN, 64], with a gate [BN / 2, 64]
    void* out;
    unsigned m, n, k, pad;
    Split split;
    Epilogue epilogue;
    uint64_t unused[4];
};
static_assert(sizeof(GemmSm90Params) == 384, "src/ops/linear/sm90.rs mirrors this");

// Finishes and writes eight columns of row `row` of a tile of `width` columns.
template <typename T>
__device__ __forceinline__ void write_sums(const GemmSm90Params& p, unsigned tile, unsigned width, unsigned row,
                                           unsigned column, float (&values)[8]) {
    unsigned rows = divide_up(p.m, TILE_ROWS), m = tile % rows * TILE_ROWS + row;
    if (m < p.m) finish_8<T>(p.epilogue, p.out, values, m, tile / rows * width + column, p.n);
}

template <typename T, int BN, bool GATED>
__device__ __forceinline__ void gemm_specialised(const GemmSm90Params& p) {
    using Tiles = Specialised<T, BN>;
    constexpr unsigned COLUMNS = GATED ? BN / 2 : BN;
    auto& shared = shared_as<typename Tiles::Shared>();
    if (thread() == MULTIPLIERS) prefetch_map(p.a), prefetch_map(p.b);
    unsigned h = GATED ? p.n / 2 : p.n;
    // Tiles go down m before they go along n: those that run together share columns of b in L2.
    unsigned rows = divide_up(p.m, TILE_ROWS);
    auto load_a = [&](unsigned tile, unsigned step, auto& slot, Mbarrier& full) {
        copy_box(slot, p.a, full, {int(step * Tiles::BK), int(tile % rows * TILE_ROWS)});
    };
    auto load_b = [&](unsigned tile, unsigned step, int, auto& slot, Mbarrier& full) {
        int k = step * Tiles::BK, n = tile / rows * COLUMNS;
        copy_box(slot, p.b, full, {k, n});
        if (GATED) copy_box(slot + BN / 2 * Tiles::BK, p.b, full, {k, int(h) + n});
    };
    auto combine = [&](unsigned tile, float(&sum)[Tiles::SUMS]) {
        if constexpr (GATED) {
            unsigned n = tile / rows * COLUMNS;
            const float* bias = p.epilogue.bias;
#pragma unroll
            for (int i = 0; i < Tiles::SUMS / 2; i++) {
                unsigned column = n + i / 4 * 8 + lane_index() % 4 * 2 + i % 2;
                if (column >= h) continue;
                sum[i] = (sum[i] + bias[column]) * gelu(sum[i + Tiles::SUMS / 2] + bias[h + column]);
            }
        }
    };
    auto write = [&](unsigned tile, unsigned row, unsigned column, float(&values)[8]) {
        if constexpr (GATED) {
            unsigned m = tile % rows * TILE_ROWS + row, n = tile / rows * COLUMNS + column;
            if (m < p.m) write_8<T>(p.out, values, uint64_t(m) * h, n, h, p.epilogue.aligned);
        } else {
            write_sums<T>(p, tile, BN, row, column, values);
        }
    };
    Tiles::template run<COLUMNS>(shared, p.split, {sizeof(typename Tiles::A), 64}, load_a, load_b, combine, write);
}

template <typename T>
__device__ void gemm_128x128_sm90(const GemmSm90Params& p) {
    gemm_specialised<T, 128, false>(p);
}
KERNEL_HALF(gemm_128x128_sm90, GemmSm90Params, 384, gemm_128x128_sm90)

template <typename T>
__device__ void gemm_128x160_sm90(const GemmSm90Params& p) {
    gemm_specialised<T, 160, false>(p);
}
KERNEL_HALF(gemm_128x160_sm90, GemmSm90Params, 384, gemm_128x160_sm90)

template <typename T>
__device__ void gemm_128x256_sm90(const GemmSm90Params& p) {
    gemm_specialised<T, 256, false>(p);
}
KERNEL_HALF(gemm_128x256_sm90, GemmSm90Params, 384, gemm_128x256_sm90)

template <typename T>
__device__ void gemm_geglu_128x128_sm90(const GemmSm90Params& p) {
    gemm_specialised<T, 128, true>(p);
}
KERNEL_HALF(gemm_geglu_128x128_sm90, GemmSm90Params, 384, gemm_geglu_128x128_sm90)

template <typename T>
__device__ void gemm_geglu_128x256_sm90(const GemmSm90Params& p) {
    gemm_specialised<T, 256, true>(p);
}
KERNEL_HALF(gemm_geglu_128x256_sm90, GemmSm90Params, 384, gemm_geglu_128x256_sm90)

template <typename T>
__device__ void gemm_join_sm90(const GemmSm90Params& p) {
    join_parts(p.split, [&](unsigned tile, unsigned row, unsigned column, float(&values)[8]) {
        write_sums<T>(p, tile, p.split.width, row, column, values);
    });
}
KERNEL_HALF(gemm_join_sm90, GemmSm90Params, 128, gemm_join_sm90)
