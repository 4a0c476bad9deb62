// Attention of heads up to 128 wide: out = softmax(q k^T / sqrt(width)) v, with the scores in registers only.
//
// q [n, l, heads, width], k, v [n, m, heads, width] => out [n, l, heads, width], sum_log [n, heads, l].
// A block is QUERIES rows of one head, a warp ROWS of them; keys come by tiles of KEYS, the next tile on its way
// by cp.async while one is computed with. The softmax is online: each row keeps its largest score so far and
// rescales what it gathered when that grows. Moves (2 l + 2 m blocks) * width elements a head.
#include "attention/tiles.cuh"

template <typename T, int WIDTH, int ROWS, int WARPS, int KEYS>
struct Forward {
    static constexpr int QUERIES = ROWS * WARPS, THREADS = 32 * WARPS;
    static constexpr int MI = ROWS / 16, NI = KEYS / 8, DI = WIDTH / 8;
    static_assert(ROWS % 16 == 0 && KEYS % 16 == 0, "products are 16 rows high, and ldmatrix loads 16 keys");

    struct Shared {
        T q[QUERIES * WIDTH];
        struct {
            T k[KEYS * WIDTH];
            T v[KEYS * WIDTH];
        } stage[2];
    };

    unsigned query[MI][DI / 2][4];
    float out[MI][DI][4];
    // of rows lane / 4 and lane / 4 + 8 of each 16: the largest score, and this lane's part of the weights' sum
    float top[MI][2], sum[MI][2];

    // Row of this lane's element e of product i.
    __device__ __forceinline__ static int row_of(int i, int e) {
        return warp_index() * ROWS + i * 16 + lane_index() / 4 + e / 2 * 8;
    }

    __device__ __forceinline__ void score(float (&s)[MI][NI][4], const T* keys) {
#pragma unroll
        for (int i = 0; i < MI; i++) clear(s[i]);
#pragma unroll
        for (int d = 0; d < DI / 2; d++)
#pragma unroll
            for (int j = 0; j < NI / 2; j++) {
                unsigned b[4];
                load_right<WIDTH>(b, keys, j * 16, d * 2);
#pragma unroll
                for (int i = 0; i < MI; i++) multiply_pair<T>(s[i][2 * j], s[i][2 * j + 1], query[i][d], b);
            }
    }

    // Hides the keys from `m` on and, with `causal`, those behind a row's own.
    __device__ __forceinline__ void hide(float (&s)[MI][NI][4], unsigned first_query, unsigned first_key, unsigned m,
                                         bool causal) {
#pragma unroll
        for (int i = 0; i < MI; i++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                unsigned seen = causal ? min(first_query + row_of(i, e) + 1, m) : m;
#pragma unroll
                for (int j = 0; j < NI; j++)
                    if (first_key + j * 8 + lane_index() % 4 * 2 + e % 2 >= seen) s[i][j][e] = minus_infinity();
            }
    }

    // Scores become weights relative to the largest score so far; what was gathered is rescaled to that.
    __device__ __forceinline__ void soften(float (&s)[MI][NI][4], float scale) {
        float grown[MI][2];
        bool any = false;
#pragma unroll
        for (int i = 0; i < MI; i++)
#pragma unroll
            for (int r = 0; r < 2; r++) {
                float largest = top[i][r];
#pragma unroll
                for (int j = 0; j < NI; j++) largest = fmaxf(largest, fmaxf(s[i][j][2 * r], s[i][j][2 * r + 1]));
                grown[i][r] = quad_max(largest);
                any |= grown[i][r] > top[i][r];
            }
        // Most tiles raise no row's largest score: the factors would all be 1.
        if (__any_sync(ALL_LANES, any)) {
#pragma unroll
            for (int i = 0; i < MI; i++)
#pragma unroll
                for (int r = 0; r < 2; r++) {
                    float factor = exp2_approximate((top[i][r] - grown[i][r]) * scale);
                    top[i][r] = grown[i][r];
                    sum[i][r] *= factor;
#pragma unroll
                    for (int d = 0; d < DI; d++) out[i][d][2 * r] *= factor, out[i][d][2 * r + 1] *= factor;
                }
        }
#pragma unroll
        for (int i = 0; i < MI; i++)
#pragma unroll
            for (int r = 0; r < 2; r++) {
                float base = top[i][r] * scale;
#pragma unroll
                for (int j = 0; j < NI; j++)
#pragma unroll
                    for (int c = 2 * r; c < 2 * r + 2; c++) {
                        s[i][j][c] = exp2_approximate(s[i][j][c] * scale - base);
                        sum[i][r] += s[i][j][c];
                    }
            }
    }

    __device__ __forceinline__ void gather(const float (&weights)[MI][NI][4], const T* values) {
#pragma unroll
        for (int j = 0; j < NI / 2; j++) {
            unsigned a[MI][4];
#pragma unroll
            for (int i = 0; i < MI; i++) as_left<T>(a[i], weights[i][2 * j], weights[i][2 * j + 1]);
#pragma unroll
            for (int d = 0; d < DI / 2; d++) {
                unsigned b[4];
                load_right_rows<WIDTH>(b, values, j * 16, d * 2);
#pragma unroll
                for (int i = 0; i < MI; i++) multiply_pair<T>(out[i][2 * d], out[i][2 * d + 1], a[i], b);
            }
        }
    }

    // Divides by the weights' sums and writes the rows, through this warp's own part of the tile of queries.
    __device__ __forceinline__ void finish(const AttentionParams& p, T* tile, unsigned first, unsigned image,
                                           unsigned head) {
        int lane = lane_index(), own = warp_index() * ROWS;
        unsigned l = p.q.rows;
#pragma unroll
        for (int i = 0; i < MI; i++)
#pragma unroll
            for (int r = 0; r < 2; r++) {
                int row = row_of(i, 2 * r);
                float total = quad_sum(sum[i][r]), inverse = 1.0f / total;
#pragma unroll
                for (int d = 0; d < DI; d++)
                    store_pair<WIDTH>(tile, row, d, out[i][d][2 * r] * inverse, out[i][d][2 * r + 1] * inverse);
                if (p.sum_log && lane % 4 == 0 && first + row < l)
                    p.sum_log[(uint64_t(image) * p.heads + head) * l + first + row] =
                        top[i][r] * p.scale * LN_2 + logf(total);
            }
        __syncwarp();
        unsigned stride = p.heads * p.width;
        T* to = static_cast<T*>(p.out) + uint64_t(image) * l * stride + head * p.width;
#pragma unroll
        for (int i = 0; i < ROWS * DI / 32; i++) {
            int item = i * 32 + lane, row = own + item / DI, chunk = item % DI;
            if (first + row < l && chunk * 8 < p.width)
                copy_chunk<WIDTH>(to + uint64_t(first + row) * stride + chunk * 8, tile, row, chunk);
        }
    }

    __device__ __forceinline__ void run(const AttentionParams& p) {
        Shared& shared = shared_as<Shared>();
        unsigned first = blockIdx.x * QUERIES, head = blockIdx.y, image = blockIdx.z, m = p.k.rows;
        unsigned seen = p.causal ? min(first + QUERIES, m) : m;
        int tiles = divide_up(seen, unsigned(KEYS));
        const T *keys = head_of<T>(p.k, image, head, p.width), *values = head_of<T>(p.v, image, head, p.width);
        auto load = [&](int tile) {
            auto& stage = shared.stage[tile % 2];
            load_rows<T, KEYS, WIDTH, THREADS>(stage.k, keys, tile * KEYS, m, p.k.stride, 0, p.width);
            load_rows<T, KEYS, WIDTH, THREADS>(stage.v, values, tile * KEYS, m, p.v.stride, 0, p.width);
        };
        load_rows<T, QUERIES, WIDTH, THREADS>(shared.q, head_of<T>(p.q, image, head, p.width), first, p.q.rows,
                                              p.q.stride, 0, p.width);
        commit_async();
        load(0);
        commit_async();
        wait_async<1>();
        __syncthreads();
#pragma unroll
        for (int i = 0; i < MI; i++) {
#pragma unroll
            for (int d = 0; d < DI / 2; d++)
                load_left<WIDTH>(query[i][d], shared.q, warp_index() * ROWS + i * 16, d * 2);
            clear(out[i]);
            top[i][0] = top[i][1] = minus_infinity();
            sum[i][0] = sum[i][1] = 0.0f;
        }
        for (int tile = 0; tile < tiles; tile++) {
            wait_async<0>();
            // The stage loaded next is the one that every warp has finished with before this barrier.
            __syncthreads();
            if (tile + 1 < tiles) load(tile + 1);
            commit_async();
            const auto& stage = shared.stage[tile % 2];
            float s[MI][NI][4];
            score(s, stage.k);
            unsigned first_key = tile * KEYS;
            if (first_key + KEYS > m || (p.causal && first_key + KEYS > first + 1))
                hide(s, first, first_key, m, p.causal);
            soften(s, p.scale);
            gather(s, stage.v);
        }
        finish(p, shared.q, first, image, head);
    }
};

// 64 wide: a warp has 32 rows, which halves what it reads of keys and values for each product.
template <typename T>
__device__ void attention_64_large(const AttentionParams& p) {
    using Kernel = Forward<T, 64, 32, 4, 64>;
    static_assert(sizeof(typename Kernel::Shared) == 49152, "src/ops/attention/plan.rs knows this");
    Kernel kernel;
    kernel.run(p);
}
KERNEL_HALF(attention_64_large, AttentionParams, 128, attention_64_large)

// The same with half as many rows a block, for few queries.
template <typename T>
__device__ void attention_64_small(const AttentionParams& p) {
    using Kernel = Forward<T, 64, 16, 4, 64>;
    static_assert(sizeof(typename Kernel::Shared) == 40960, "src/ops/attention/plan.rs knows this");
    Kernel kernel;
    kernel.run(p);
}
KERNEL_HALF(attention_64_small, AttentionParams, 128, attention_64_small)

template <typename T>
__device__ void attention_128(const AttentionParams& p) {
    using Kernel = Forward<T, 128, 16, 4, 64>;
    static_assert(sizeof(typename Kernel::Shared) == 81920, "src/ops/attention/plan.rs knows this");
    Kernel kernel;
    kernel.run(p);
}
KERNEL_HALF(attention_128, AttentionParams, 128, attention_128)
