// Linear layers: out = epilogue(a . b^T), and the gated GELU of the transformers' feed-forward.
//
// a [m, k], b [n, k] => out [m, n]; gated: b = [value | gate] [2h, k] => out [m, h].
// Halves: tensor cores over 32 of k at a time, STAGES tiles on their way by cp.async. f32: plain products,
// for checking. Moves (m + n) * k + m * n elements at least.
#include "common/async_copy.cuh"
#include "common/epilogue.cuh"
#include "common/kernel.cuh"
#include "common/tile.cuh"

struct GemmParams {
    void* out;
    const void* a;
    const void* b;
    unsigned m, n, k;
    // k and the addresses of a and b let rows be read 16 bytes at a time
    unsigned aligned;
    Epilogue epilogue;
};
static_assert(sizeof(GemmParams) == 88, "src/ops/linear/cuda.rs mirrors this");

// The tile of this block. Blocks go down GROUP tiles of m before they go to the next of n, so that those that
// run together share both operands in L2.
__device__ __forceinline__ void find_tile(const GemmParams& p, unsigned bm, unsigned bn, unsigned& m, unsigned& n) {
    constexpr unsigned GROUP = 8;
    unsigned rows = divide_up(p.m, bm), columns = divide_up(p.n, bn);
    unsigned group = blockIdx.x / (GROUP * columns), within = blockIdx.x % (GROUP * columns);
    unsigned height = rows - group * GROUP < GROUP ? rows - group * GROUP : GROUP;
    m = (group * GROUP + within % height) * bm;
    n = within / height * bn;
}

// The row of b that tile row n is: with a gate, value and gate of an output alternate.
template <bool GATED>
__device__ __forceinline__ unsigned row_of_b(unsigned n, unsigned total) {
    return GATED ? n / 2 + n % 2 * (total / 2) : n;
}

// Puts [ROWS, 32] of a row-major matrix into a tile; rows and columns beyond the matrix become zeros.
template <typename T, int ROWS, int THREADS, typename Row>
__device__ __forceinline__ void load_tile(T* tile, const void* matrix, unsigned first, unsigned rows, unsigned k0,
                                          unsigned k, bool aligned, Row row_of) {
    const T* from = static_cast<const T*>(matrix);
#pragma unroll
    for (int i = 0; i < ROWS * 4 / THREADS; i++) {
        int item = i * THREADS + thread(), row = item / 4, chunk = item % 4;
        unsigned at = k0 + chunk * 8;
        bool inside = first + row < rows && at < k;
        uint64_t start = inside ? uint64_t(row_of(first + row)) * k + at : 0;
        T* to = tile + tile_offset(row, chunk);
        if (aligned) {
            copy_async_16(to, from + start, inside ? 16 : 0);
        } else {
#pragma unroll
            for (int j = 0; j < 8; j++) to[j] = inside && at + j < k ? from[start + j] : from_f32<T>(0.0f);
        }
    }
}

// Finishes GROUP columns of one row of sums.
template <typename T, bool GATED, int GROUP>
__device__ __forceinline__ void finish(const GemmParams& p, unsigned row, unsigned column, float (&values)[GROUP]) {
    if (row >= p.m) return;
    if constexpr (GATED) {
        // The biases of value and gate are [2h]; the gate is an activation of its own.
        float out[8];
        unsigned first = column / 2, h = p.n / 2;
        const float* bias = p.epilogue.bias;
#pragma unroll
        for (int i = 0; i < 8; i++) {
            bool there = first + i < h;
            float value = values[2 * i] + (there ? bias[first + i] : 0.0f);
            float gate = values[2 * i + 1] + (there ? bias[h + first + i] : 0.0f);
            out[i] = value * gelu(gate);
        }
        T* to = static_cast<T*>(p.out) + uint64_t(row) * h + first;
        int own = first >= h ? 0 : h - first < 8 ? int(h - first) : 8;
        if (p.epilogue.aligned && own == 8)
            store_8(to, out);
        else
            store_some(to, out, own);
    } else {
        finish_8<T>(p.epilogue, p.out, values, row, column, p.n);
    }
}

// --- halves --------------------------------------------------------------------------------------------

template <typename T, int BM, int BN, int WARPS_M, int WARPS_N, int STAGES>
struct GemmShared {
    union {
        struct {
            T a[BM * TILE_K];
            T b[BN * TILE_K];
        } stage[STAGES];
        typename TileProduct<T, BM, BN, WARPS_M, WARPS_N>::Staging staging;
    };
};

template <typename T, int BM, int BN, int WARPS_M, int WARPS_N, int STAGES, bool GATED>
__device__ __forceinline__ void gemm_tiles(const GemmParams& p) {
    using Product = TileProduct<T, BM, BN, WARPS_M, WARPS_N>;
    using Shared = GemmShared<T, BM, BN, WARPS_M, WARPS_N, STAGES>;
    static_assert(sizeof(Shared) == STAGES * (BM + BN) * TILE_K * 2, "src/ops/linear/plan.rs computes this");
    Shared& shared = shared_as<Shared>();
    unsigned m, n;
    find_tile(p, BM, BN, m, n);
    int tiles = divide_up(p.k, unsigned(TILE_K));
    auto load = [&](int tile) {
        auto& stage = shared.stage[tile % STAGES];
        load_tile<T, BM, Product::THREADS>(stage.a, p.a, m, p.m, tile * TILE_K, p.k, p.aligned,
                                           [](unsigned row) { return row; });
        load_tile<T, BN, Product::THREADS>(stage.b, p.b, n, p.n, tile * TILE_K, p.k, p.aligned,
                                           [&](unsigned row) { return row_of_b<GATED>(row, p.n); });
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
        product.step(shared.stage[tile % STAGES].a, shared.stage[tile % STAGES].b);
    }
    wait_async<0>();
    __syncthreads();
    product.template drain<GATED ? 16 : 8>(shared.staging, [&](int row, int column, auto& values) {
        finish<T, GATED>(p, m + row, n + column, values);
    });
}

template <typename T>
__device__ void gemm_128x128(const GemmParams& p) {
    gemm_tiles<T, 128, 128, 2, 4, 4, false>(p);
}
KERNEL_HALF(gemm_128x128, GemmParams, 256, gemm_128x128)

template <typename T>
__device__ void gemm_64x64(const GemmParams& p) {
    gemm_tiles<T, 64, 64, 2, 2, 4, false>(p);
}
KERNEL_HALF(gemm_64x64, GemmParams, 128, gemm_64x64)

template <typename T>
__device__ void gemm_geglu_128x128(const GemmParams& p) {
    gemm_tiles<T, 128, 128, 2, 4, 4, true>(p);
}
KERNEL_HALF(gemm_geglu_128x128, GemmParams, 256, gemm_geglu_128x128)

template <typename T>
__device__ void gemm_geglu_64x64(const GemmParams& p) {
    gemm_tiles<T, 64, 64, 2, 2, 4, true>(p);
}
KERNEL_HALF(gemm_geglu_64x64, GemmParams, 128, gemm_geglu_64x64)

// --- f32 -----------------------------------------------------------------------------------------------

constexpr int PLAIN = 64, PLAIN_K = 16, PLAIN_THREADS = 256;

struct PlainShared {
    union {
        struct {
            // [k][row]; 4 floats of padding put neighbouring k in different banks
            float a[PLAIN_K][PLAIN + 4];
            float b[PLAIN_K][PLAIN + 4];
        };
        float staging[PLAIN][PLAIN + 4];
    };
};
static_assert(sizeof(PlainShared) == 17408, "src/ops/linear/plan.rs knows this");

// A 64 x 64 tile by 256 threads, 4 x 4 sums each.
template <bool GATED>
__device__ __forceinline__ void plain_tile(const GemmParams& p) {
    PlainShared& shared = shared_as<PlainShared>();
    unsigned m, n;
    find_tile(p, PLAIN, PLAIN, m, n);
    const float *a = static_cast<const float*>(p.a), *b = static_cast<const float*>(p.b);
    int row = thread() / 16 * 4, column = thread() % 16 * 4;
    float sum[4][4] = {};
    for (unsigned k0 = 0; k0 < p.k; k0 += PLAIN_K) {
#pragma unroll
        for (int i = 0; i < PLAIN * PLAIN_K / PLAIN_THREADS; i++) {
            int item = i * PLAIN_THREADS + thread(), line = item / PLAIN_K, k = item % PLAIN_K;
            bool inside = k0 + k < p.k;
            shared.a[k][line] = inside && m + line < p.m ? a[uint64_t(m + line) * p.k + k0 + k] : 0.0f;
            shared.b[k][line] =
                inside && n + line < p.n ? b[uint64_t(row_of_b<GATED>(n + line, p.n)) * p.k + k0 + k] : 0.0f;
        }
        __syncthreads();
#pragma unroll
        for (int k = 0; k < PLAIN_K; k++)
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 4; j++) sum[i][j] += shared.a[k][row + i] * shared.b[k][column + j];
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) shared.staging[row + i][column + j] = sum[i][j];
    __syncthreads();
    constexpr int GROUP = GATED ? 16 : 8;
    for (int item = thread(); item < PLAIN * PLAIN / GROUP; item += PLAIN_THREADS) {
        int line = item / (PLAIN / GROUP), first = item % (PLAIN / GROUP) * GROUP;
        float values[GROUP];
#pragma unroll
        for (int i = 0; i < GROUP; i++) values[i] = shared.staging[line][first + i];
        finish<float, GATED>(p, m + line, n + first, values);
    }
}

template <typename T>
__device__ void gemm_plain(const GemmParams& p) {
    plain_tile<false>(p);
}
KERNEL(gemm_64x64_f32, GemmParams, 256, gemm_plain<float>)

template <typename T>
__device__ void gemm_geglu_plain(const GemmParams& p) {
    plain_tile<true>(p);
}
KERNEL(gemm_geglu_64x64_f32, GemmParams, 256, gemm_geglu_plain<float>)
