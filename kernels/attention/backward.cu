// The gradients of attention of heads up to 64 wide, from the log-sum-exp that the forward pass kept.
//
// With s = scale q k^T, p = exp(s - sum_log), g the gradient of out and d = p * (g v^T - sum(g * out)):
//     dq = scale d k,    dk = scale d^T q,    dv = p^T g.
// Nothing is added up across blocks: one pass goes over blocks of queries for dq, one over blocks of keys for dk
// and dv, and both make p and d again. So the bits are the same in every run.
//
// q, g [n, l, heads, width], k, v [n, m, heads, width], sum_log [n, heads, l] => the same shapes as q, k, v.
#include "attention/tiles.cuh"

// A block's own rows are queries (KEYS false) or keys (true), ROWS a warp; the others stream by, COLUMNS at a
// time, two tiles on their way. Scores are [own, streamed], so that a warp's weights are A of its next products as
// they lie in registers.
template <typename T, bool KEYS, int WIDTH, int ROWS, int WARPS, int COLUMNS>
struct Backward {
    static constexpr int OWN = ROWS * WARPS, THREADS = 32 * WARPS;
    static constexpr int MI = ROWS / 16, NI = COLUMNS / 8, DI = WIDTH / 8;
    static_assert(ROWS % 16 == 0 && COLUMNS % 16 == 0, "products are 16 rows high, and ldmatrix loads 16 rows");
    static_assert(THREADS >= 2 * COLUMNS, "a thread copies one statistic of a streamed row");

    struct Shared {
        // own rows of q and g, or of k and v
        T own[2][OWN * WIDTH];
        struct {
            // rows of k and v, or of q and g
            T rows[2][COLUMNS * WIDTH];
            // of queries that stream by: log-sum-exp, and product of out with its gradient
            float statistic[2][COLUMNS];
        } stage[2];
    };

    const AttentionBackwardParams& p;
    Shared& shared;
    unsigned first, head, image;
    // of own queries
    float sum_log[MI][2], product[MI][2];
    // dq, or dk and dv
    float out[KEYS ? 2 : 1][MI][DI][4];

    __device__ __forceinline__ explicit Backward(const AttentionBackwardParams& p)
        : p(p), shared(shared_as<Shared>()), first(blockIdx.x * OWN), head(blockIdx.y), image(blockIdx.z) {}

    // Own row of this lane's element e of product i.
    __device__ __forceinline__ static int row_of(int i, int e) {
        return warp_index() * ROWS + i * 16 + lane_index() / 4 + e / 2 * 8;
    }
    __device__ __forceinline__ static int column_of(int j, int e) { return j * 8 + lane_index() % 4 * 2 + e % 2; }

    __device__ __forceinline__ unsigned own_rows() const { return KEYS ? p.k.rows : p.q.rows; }

    // Of the queries of this head.
    __device__ __forceinline__ uint64_t statistics() const {
        return (uint64_t(image) * p.heads + head) * p.q.rows;
    }

    __device__ __forceinline__ void load(int tile) {
        const Rows &a = KEYS ? p.q : p.k, &b = KEYS ? p.gradient : p.v;
        auto& stage = shared.stage[tile % 2];
        unsigned row = tile * COLUMNS;
        load_rows<T, COLUMNS, WIDTH, THREADS>(stage.rows[0], head_of<T>(a, image, head, p.width), row, a.rows, a.stride,
                                              0, p.width);
        load_rows<T, COLUMNS, WIDTH, THREADS>(stage.rows[1], head_of<T>(b, image, head, p.width), row, b.rows, b.stride,
                                              0, p.width);
        // A query that is not there gets zeros: its weights are 1, but its row of g is zero.
        if (KEYS && thread() < 2 * COLUMNS) {
            unsigned query = row + thread() % COLUMNS;
            bool inside = query < p.q.rows;
            const float* from = (thread() < COLUMNS ? p.sum_log : p.products) + statistics() + (inside ? query : 0);
            copy_async_4(&stage.statistic[thread() / COLUMNS][thread() % COLUMNS], from, inside ? 4 : 0);
        }
    }

    // sums = own . streamed^T
    __device__ __forceinline__ void multiply_rows(float (&sums)[MI][NI][4], const T* own, const T* streamed) {
#pragma unroll
        for (int i = 0; i < MI; i++) clear(sums[i]);
#pragma unroll
        for (int d = 0; d < DI / 2; d++) {
            unsigned a[MI][4];
#pragma unroll
            for (int i = 0; i < MI; i++) load_left<WIDTH>(a[i], own, warp_index() * ROWS + i * 16, d * 2);
#pragma unroll
            for (int j = 0; j < NI / 2; j++) {
                unsigned b[4];
                load_right<WIDTH>(b, streamed, j * 16, d * 2);
#pragma unroll
                for (int i = 0; i < MI; i++) multiply_pair<T>(sums[i][2 * j], sums[i][2 * j + 1], a[i], b);
            }
        }
    }

    // sums += weights . streamed
    __device__ __forceinline__ void gather(float (&sums)[MI][DI][4], const float (&weights)[MI][NI][4],
                                           const T* streamed) {
#pragma unroll
        for (int j = 0; j < NI / 2; j++) {
            unsigned a[MI][4];
#pragma unroll
            for (int i = 0; i < MI; i++) as_left<T>(a[i], weights[i][2 * j], weights[i][2 * j + 1]);
#pragma unroll
            for (int d = 0; d < DI / 2; d++) {
                unsigned b[4];
                load_right_rows<WIDTH>(b, streamed, j * 16, d * 2);
#pragma unroll
                for (int i = 0; i < MI; i++) multiply_pair<T>(sums[i][2 * d], sums[i][2 * d + 1], a[i], b);
            }
        }
    }

    // Scores become weights.
    __device__ __forceinline__ void weigh(float (&s)[MI][NI][4], int tile) {
        const auto& stage = shared.stage[tile % 2];
        unsigned column = tile * COLUMNS;
        // Keys that are not there have weights when they stream by; a causal mask cuts through few tiles.
        bool cut = KEYS ? p.causal && column < first + OWN
                        : column + COLUMNS > p.k.rows || (p.causal && column + COLUMNS > first + 1);
#pragma unroll
        for (int i = 0; i < MI; i++)
#pragma unroll
            for (int j = 0; j < NI; j++)
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    float base = KEYS ? stage.statistic[0][column_of(j, e)] : sum_log[i][e / 2];
                    s[i][j][e] = exp2_approximate(s[i][j][e] * p.scale - base * LOG2_E);
                    if (cut) {
                        unsigned own = first + row_of(i, e), other = column + column_of(j, e);
                        bool seen = KEYS ? other >= own : other < p.k.rows && (!p.causal || other <= own);
                        if (!seen) s[i][j][e] = 0.0f;
                    }
                }
    }

    // g v^T becomes d.
    __device__ __forceinline__ void differentiate(float (&d)[MI][NI][4], const float (&weights)[MI][NI][4], int tile) {
        const auto& stage = shared.stage[tile % 2];
#pragma unroll
        for (int i = 0; i < MI; i++)
#pragma unroll
            for (int j = 0; j < NI; j++)
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    float base = KEYS ? stage.statistic[1][column_of(j, e)] : product[i][e / 2];
                    d[i][j][e] = weights[i][j][e] * (d[i][j][e] - base);
                }
    }

    // Writes `factor` * sums, through this warp's part of a tile of own rows.
    __device__ __forceinline__ void write(const Rows& target, float (&sums)[MI][DI][4], float factor, T* tile) {
        if (!target.data) return;
        // The warp's last reads of the tile come first.
        __syncwarp();
#pragma unroll
        for (int i = 0; i < MI; i++)
#pragma unroll
            for (int d = 0; d < DI; d++) {
                store_pair<WIDTH>(tile, row_of(i, 0), d, sums[i][d][0] * factor, sums[i][d][1] * factor);
                store_pair<WIDTH>(tile, row_of(i, 2), d, sums[i][d][2] * factor, sums[i][d][3] * factor);
            }
        __syncwarp();
        T* to = const_cast<T*>(head_of<T>(target, image, head, p.width));
#pragma unroll
        for (int i = 0; i < ROWS * DI / 32; i++) {
            int item = i * 32 + lane_index(), row = warp_index() * ROWS + item / DI, chunk = item % DI;
            if (first + row < target.rows && chunk * 8 < p.width)
                copy_chunk<WIDTH>(to + uint64_t(first + row) * target.stride + chunk * 8, tile, row, chunk);
        }
    }

    __device__ __forceinline__ void run() {
        const Rows &a = KEYS ? p.k : p.q, &b = KEYS ? p.v : p.gradient;
        load_rows<T, OWN, WIDTH, THREADS>(shared.own[0], head_of<T>(a, image, head, p.width), first, a.rows, a.stride, 0,
                                          p.width);
        load_rows<T, OWN, WIDTH, THREADS>(shared.own[1], head_of<T>(b, image, head, p.width), first, b.rows, b.stride, 0,
                                          p.width);
        int begin = KEYS && p.causal ? first / COLUMNS : 0;
        unsigned streamed = KEYS ? p.q.rows : p.causal ? min(first + OWN, p.k.rows) : p.k.rows;
        int end = divide_up(streamed, unsigned(COLUMNS));
        load(begin);
        commit_async();
#pragma unroll
        for (int i = 0; i < MI; i++) {
#pragma unroll
            for (auto& sums : out) clear(sums[i]);
#pragma unroll
            for (int r = 0; r < 2; r++)
                if (!KEYS) {
                    // Rows that are not there are computed, of zeros, and not written.
                    unsigned query = first + row_of(i, 2 * r);
                    bool inside = query < p.q.rows;
                    sum_log[i][r] = inside ? p.sum_log[statistics() + query] : 0.0f;
                    product[i][r] = inside ? p.products[statistics() + query] : 0.0f;
                }
        }
        for (int tile = begin; tile < end; tile++) {
            wait_async<0>();
            // The stage loaded next is the one that every warp has finished with before this barrier.
            __syncthreads();
            if (tile + 1 < end) load(tile + 1);
            commit_async();
            const auto& stage = shared.stage[tile % 2];
            float weights[MI][NI][4], d[MI][NI][4];
            multiply_rows(weights, shared.own[0], stage.rows[0]);
            weigh(weights, tile);
            if constexpr (KEYS) gather(out[1], weights, stage.rows[1]);
            multiply_rows(d, shared.own[1], stage.rows[1]);
            differentiate(d, weights, tile);
            gather(out[0], d, stage.rows[0]);
        }
        write(p.first, out[0], p.scale * LN_2, shared.own[0]);
        if constexpr (KEYS) write(p.second, out[1], 1.0f, shared.own[1]);
    }
};

template <typename T, bool KEYS, int ROWS, int COLUMNS>
__device__ __forceinline__ void backward_64(const AttentionBackwardParams& p) {
    using Kernel = Backward<T, KEYS, 64, ROWS, 4, COLUMNS>;
    static_assert(sizeof(typename Kernel::Shared) == ROWS * 1024 + COLUMNS * 528, "src/ops/attention/plan.rs knows");
    Kernel kernel(p);
    kernel.run();
}

template <typename T>
__device__ void attention_dq_64_large(const AttentionBackwardParams& p) {
    backward_64<T, false, 32, 32>(p);
}
KERNEL_HALF(attention_dq_64_large, AttentionBackwardParams, 128, attention_dq_64_large)

template <typename T>
__device__ void attention_dkv_64_large(const AttentionBackwardParams& p) {
    backward_64<T, true, 32, 32>(p);
}
KERNEL_HALF(attention_dkv_64_large, AttentionBackwardParams, 128, attention_dkv_64_large)

// The same with half as many own rows a block, for few of them.
template <typename T>
__device__ void attention_dq_64_small(const AttentionBackwardParams& p) {
    backward_64<T, false, 16, 64>(p);
}
KERNEL_HALF(attention_dq_64_small, AttentionBackwardParams, 128, attention_dq_64_small)

template <typename T>
__device__ void attention_dkv_64_small(const AttentionBackwardParams& p) {
    backward_64<T, true, 16, 64>(p);
}
KERNEL_HALF(attention_dkv_64_small, AttentionBackwardParams, 128, attention_dkv_64_small)
