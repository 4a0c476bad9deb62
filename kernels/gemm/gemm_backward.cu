// Gradients of linear layers: products whose operands lie with the summed index slow.
//
// dgrad: out [m, n] = scale * a . b, a [m, k], b [k, n]; wgrad: out [m, n] = scale * a^T . b, a [k, m], b [k, n].
// Halves: tensor cores over 32 of k at a time, STAGES tiles on their way by cp.async; what lies by k is read
// transposed from shared memory. Where there are few tiles, k is split: the last block of a tile adds the splits'
// sums in their order. f32: plain products, for checking. Moves m * k + k * n + m * n elements at least.
#include "common/async_copy.cuh"
#include "common/grid.cuh"
#include "common/kernel.cuh"
#include "common/tile.cuh"

struct BackwardGemmParams {
    void* out;  // T, or f32
    const void* a;
    const void* b;
    float* partial;      // [tiles, splits, BM, BN]; unused with one split
    unsigned* counters;  // [tiles]
    unsigned m, n, k;
    unsigned splits;
    unsigned split_k;  // of k in a split, a multiple of 32
    float scale;
    unsigned out_f32;
    // rows are a multiple of 8, addresses of 16: operands, result
    unsigned aligned, out_aligned;
    unsigned pad;
};
static_assert(sizeof(BackwardGemmParams) == 80, "src/ops/linear/cuda_backward.rs mirrors this");

// Writes eight consecutive columns of a row of the result.
template <typename T>
__device__ __forceinline__ void write_8(const BackwardGemmParams& p, unsigned row, unsigned column, float (&v)[8]) {
    if (row >= p.m || column >= p.n) return;
    int own = p.n - column < 8 ? int(p.n - column) : 8;
    uint64_t at = uint64_t(row) * p.n + column;
#pragma unroll
    for (int i = 0; i < 8; i++) v[i] *= p.scale;
    if (p.out_f32)
        store_up_to_8(static_cast<float*>(p.out) + at, v, own, p.out_aligned);
    else
        store_up_to_8(static_cast<T*>(p.out) + at, v, own, p.out_aligned);
}

// --- halves --------------------------------------------------------------------------------------------

template <typename T, int BM, int BN, int WARPS_M, int WARPS_N, int STAGES>
struct BackwardShared {
    union {
        struct {
            T a[BM * TILE_K];
            T b[BN * TILE_K];
        } stage[STAGES];
        typename TileProduct<T, BM, BN, WARPS_M, WARPS_N>::Staging staging;
    };
    unsigned flag[4];
};

// Puts columns `first` on of [32, columns] into a tile by k; rows and columns beyond the matrix become zeros.
template <typename T, int COLUMNS, int THREADS>
__device__ __forceinline__ void load_by_k(T* tile, const void* matrix, unsigned first, unsigned columns, unsigned k0,
                                          unsigned k, bool aligned) {
    const T* from = static_cast<const T*>(matrix);
#pragma unroll
    for (int i = 0; i < COLUMNS * 4 / THREADS; i++) {
        int item = i * THREADS + thread(), row = item / (COLUMNS / 8), chunk = item % (COLUMNS / 8);
        unsigned at = first + chunk * 8;
        bool inside = k0 + row < k && at < columns;
        uint64_t start = inside ? uint64_t(k0 + row) * columns + at : 0;
        T* to = tile + offset_by_k(row, chunk);
        if (aligned) {
            copy_async_16(to, from + start, inside ? 16 : 0);
        } else {
#pragma unroll
            for (int j = 0; j < 8; j++) to[j] = inside && at + j < columns ? from[start + j] : from_f32<T>(0.0f);
        }
    }
}

// Puts k0 on of rows `first` on of a row-major [rows, k] into a tile.
template <typename T, int ROWS, int THREADS>
__device__ __forceinline__ void load_by_row(T* tile, const void* matrix, unsigned first, unsigned rows, unsigned k0,
                                            unsigned end, unsigned k, bool aligned) {
    const T* from = static_cast<const T*>(matrix);
#pragma unroll
    for (int i = 0; i < ROWS * 4 / THREADS; i++) {
        int item = i * THREADS + thread(), row = item / 4, chunk = item % 4;
        unsigned at = k0 + chunk * 8;
        bool inside = first + row < rows && at < end;
        uint64_t start = inside ? uint64_t(first + row) * k + at : 0;
        T* to = tile + tile_offset(row, chunk);
        if (aligned) {
            copy_async_16(to, from + start, inside ? 16 : 0);
        } else {
#pragma unroll
            for (int j = 0; j < 8; j++) to[j] = inside && at + j < end ? from[start + j] : from_f32<T>(0.0f);
        }
    }
}

template <typename T, bool A_BY_K, int BM, int BN, int WARPS_M, int WARPS_N, int STAGES>
__device__ __forceinline__ void backward_tiles(const BackwardGemmParams& p) {
    using Product = TileProduct<T, BM, BN, WARPS_M, WARPS_N>;
    using Shared = BackwardShared<T, BM, BN, WARPS_M, WARPS_N, STAGES>;
    static_assert(sizeof(Shared) == STAGES * (BM + BN) * TILE_K * 2 + 16, "src/ops/linear/plan.rs computes this");
    Shared& shared = shared_as<Shared>();
    unsigned rows = divide_up(p.m, unsigned(BM)), tile_index = blockIdx.x;
    unsigned m = tile_index % rows * BM, n = tile_index / rows * BN;
    unsigned first = blockIdx.y * p.split_k, end = p.k - first < p.split_k ? p.k : first + p.split_k;
    int tiles = divide_up(end - first, unsigned(TILE_K));
    auto load = [&](int tile) {
        auto& stage = shared.stage[tile % STAGES];
        unsigned k0 = first + tile * TILE_K;
        if constexpr (A_BY_K)
            load_by_k<T, BM, Product::THREADS>(stage.a, p.a, m, p.m, k0, end, p.aligned);
        else
            load_by_row<T, BM, Product::THREADS>(stage.a, p.a, m, p.m, k0, end, p.k, p.aligned);
        load_by_k<T, BN, Product::THREADS>(stage.b, p.b, n, p.n, k0, end, p.aligned);
    };
    for (int tile = 0; tile < STAGES - 1; tile++) {
        if (tile < tiles) load(tile);
        commit_async();
    }
    Product product;
    product.clear();
    for (int tile = 0; tile < tiles; tile++) {
        wait_async<STAGES - 2>();
        // The stage loaded next is the one that every warp has finished with before this barrier.
        __syncthreads();
        if (tile + STAGES - 1 < tiles) load(tile + STAGES - 1);
        commit_async();
        product.template step_by<A_BY_K, true>(shared.stage[tile % STAGES].a, shared.stage[tile % STAGES].b);
    }
    wait_async<0>();
    __syncthreads();
    if (p.splits == 1) {
        product.template drain<8>(shared.staging, [&](int row, int column, auto& values) {
            write_8<T>(p, m + row, n + column, values);
        });
        return;
    }
    float* partial = p.partial + uint64_t(tile_index) * p.splits * BM * BN;
    product.template drain<8>(shared.staging, [&](int row, int column, auto& values) {
        store_8(partial + (blockIdx.y * BM + row) * BN + column, values);
    });
    if (!arrive_last(p.counters + tile_index, p.splits, shared.flag[0])) return;
    for (int item = thread(); item < BM * BN / 8; item += Product::THREADS) {
        float sum[8] = {};
        for (unsigned split = 0; split < p.splits; split++) {
            float values[8];
            load_8(partial + uint64_t(split) * BM * BN + item * 8, values);
#pragma unroll
            for (int i = 0; i < 8; i++) sum[i] += values[i];
        }
        write_8<T>(p, m + item * 8 / BN, n + item * 8 % BN, sum);
    }
}

template <typename T>
__device__ void dgrad_128x128(const BackwardGemmParams& p) {
    backward_tiles<T, false, 128, 128, 2, 4, 4>(p);
}
KERNEL_HALF(linear_dgrad_128x128, BackwardGemmParams, 256, dgrad_128x128)

template <typename T>
__device__ void dgrad_64x64(const BackwardGemmParams& p) {
    backward_tiles<T, false, 64, 64, 2, 2, 4>(p);
}
KERNEL_HALF(linear_dgrad_64x64, BackwardGemmParams, 128, dgrad_64x64)

template <typename T>
__device__ void wgrad_128x128(const BackwardGemmParams& p) {
    backward_tiles<T, true, 128, 128, 2, 4, 4>(p);
}
KERNEL_HALF(linear_wgrad_128x128, BackwardGemmParams, 256, wgrad_128x128)

template <typename T>
__device__ void wgrad_64x64(const BackwardGemmParams& p) {
    backward_tiles<T, true, 64, 64, 2, 2, 4>(p);
}
KERNEL_HALF(linear_wgrad_64x64, BackwardGemmParams, 128, wgrad_64x64)

// --- f32 -----------------------------------------------------------------------------------------------

constexpr int PLAIN = 64, PLAIN_K = 16, PLAIN_THREADS = 256;

struct PlainBackwardShared {
    // [k][row]; 4 floats of padding put neighbouring k in different banks
    float a[PLAIN_K][PLAIN + 4];
    float b[PLAIN_K][PLAIN + 4];
};
static_assert(sizeof(PlainBackwardShared) == 8704, "src/ops/linear/plan.rs knows this");

// A 64 x 64 tile by 256 threads, 2 rows of 8 columns each; one split.
template <bool A_BY_K>
__device__ __forceinline__ void plain_backward(const BackwardGemmParams& p) {
    auto& shared = shared_as<PlainBackwardShared>();
    unsigned rows = divide_up(p.m, unsigned(PLAIN)), m = blockIdx.x % rows * PLAIN, n = blockIdx.x / rows * PLAIN;
    const float *a = static_cast<const float*>(p.a), *b = static_cast<const float*>(p.b);
    int row = thread() / 8 * 2, column = thread() % 8 * 8;
    float sum[2][8] = {};
    for (unsigned k0 = 0; k0 < p.k; k0 += PLAIN_K) {
#pragma unroll
        for (int i = 0; i < PLAIN * PLAIN_K / PLAIN_THREADS; i++) {
            unsigned item = i * PLAIN_THREADS + thread(), line = item % PLAIN, k = item / PLAIN;
            if (!A_BY_K) line = item / PLAIN_K, k = item % PLAIN_K;
            bool there = k0 + k < p.k && m + line < p.m;
            uint64_t at = A_BY_K ? uint64_t(k0 + k) * p.m + m + line : uint64_t(m + line) * p.k + k0 + k;
            shared.a[k][line] = there ? a[at] : 0.0f;
            line = item % PLAIN, k = item / PLAIN;
            shared.b[k][line] = k0 + k < p.k && n + line < p.n ? b[uint64_t(k0 + k) * p.n + n + line] : 0.0f;
        }
        __syncthreads();
#pragma unroll
        for (int k = 0; k < PLAIN_K; k++)
#pragma unroll
            for (int i = 0; i < 2; i++)
#pragma unroll
                for (int j = 0; j < 8; j++) sum[i][j] += shared.a[k][row + i] * shared.b[k][column + j];
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < 2; i++) write_8<float>(p, m + row + i, n + column, sum[i]);
}

template <typename T>
__device__ void dgrad_plain(const BackwardGemmParams& p) {
    plain_backward<false>(p);
}
KERNEL(linear_dgrad_64x64_f32, BackwardGemmParams, 256, dgrad_plain<float>)

template <typename T>
__device__ void wgrad_plain(const BackwardGemmParams& p) {
    plain_backward<true>(p);
}
KERNEL(linear_wgrad_64x64_f32, BackwardGemmParams, 256, wgrad_plain<float>)
