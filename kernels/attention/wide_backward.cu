// The gradients of attention of one head of up to 512 columns (see backward.cu), for training through the
// autoencoder.
//
// A block's own 32 rows are queries or keys, held in shared memory with their partners, q with the gradient of out
// or k with v; its 8 warps hold the [32, 512] sums, 64 columns each. Of a tile of 64 streamed rows a warp scores
// 16 x 16; weights and slopes go through shared memory to all warps.
#include "attention/slices.cuh"

constexpr int WIDE_OWN = 32;

template <typename T>
struct WideBackwardShared {
    T own[2][WIDE_OWN * WIDE];
    // p and d
    T weights[2][WIDE_OWN * WIDE_TILE];
    T slices[SLICE_STAGES][SLICE];
    // of queries that stream by: log-sum-exp, and product of out with its gradient
    float statistic[2][WIDE_TILE];
};

template <typename T, bool KEYS>
struct WideBackward {
    // Of a tile: both partners by columns, then the rows that the first gradient is made of, then, for keys, those
    // of the second.
    static constexpr int SLICES = KEYS ? 32 : 24;

    const AttentionBackwardParams& p;
    WideBackwardShared<T>& shared;
    Slices<T> slices;
    unsigned first, head, image;
    int begin, end;
    // of own queries
    float sum_log[2], product[2];
    WideSums<T, 2> out[KEYS ? 2 : 1];

    __device__ __forceinline__ explicit WideBackward(const AttentionBackwardParams& p)
        : p(p), shared(shared_as<WideBackwardShared<T>>()), slices(shared.slices) {
        static_assert(sizeof(WideBackwardShared<T>) == 98816, "src/ops/attention/plan.rs knows this");
        first = blockIdx.x * WIDE_OWN, head = blockIdx.y, image = blockIdx.z;
        begin = KEYS && p.causal ? first / WIDE_TILE : 0;
        unsigned streamed = KEYS ? p.q.rows : p.causal ? min(first + WIDE_OWN, p.k.rows) : p.k.rows;
        end = divide_up(streamed, unsigned(WIDE_TILE));
#pragma unroll
        for (auto& sums : out) sums.clear_all();
    }

    // Rows and columns of scores that are this warp's.
    __device__ __forceinline__ static int own_row() { return warp_index() % 2 * 16; }
    __device__ __forceinline__ static int own_column() { return warp_index() / 2 * 16; }

    // Of the queries of this head.
    __device__ __forceinline__ uint64_t statistics() const { return (uint64_t(image) * p.heads + head) * p.q.rows; }

    __device__ __forceinline__ void load(int number, T* to) {
        int tile = begin + number / SLICES, slice = number % SLICES;
        if (tile >= end) return;
        unsigned row = tile * WIDE_TILE;
        // Slices alternate between the partners by eights.
        const Rows& rows = slice / 8 % 2 == 0 ? (KEYS ? p.q : p.k) : (KEYS ? p.gradient : p.v);
        const T* from = head_of<T>(rows, image, head, p.width);
        if (slice < 16)
            load_columns(to, rows, from, row, slice % 8, p.width);
        else
            load_half_rows(to, rows, from, row, slice % 8, p.width);
        // The last tile's were read many barriers ago. A query that is not there gets zeros: its weights are 1, but
        // its row of the gradient is zero.
        if (KEYS && slice == 0 && thread() < 2 * WIDE_TILE) {
            unsigned query = row + thread() % WIDE_TILE;
            bool inside = query < p.q.rows;
            const float* statistic = (thread() < WIDE_TILE ? p.sum_log : p.products) + statistics();
            copy_async_4(&shared.statistic[thread() / WIDE_TILE][thread() % WIDE_TILE],
                         statistic + (inside ? query : 0), inside ? 4 : 0);
        }
    }
    __device__ __forceinline__ const T* next() {
        return slices.next([&](int number, T* to) { load(number, to); });
    }

    // Scores become weights, and slopes those of the scores, both in shared memory.
    __device__ __forceinline__ void differentiate(const float (&s)[2][4], const float (&slopes)[2][4], unsigned column) {
#pragma unroll
        for (int r = 0; r < 2; r++)
#pragma unroll
            for (int j = 0; j < 2; j++) {
                int row = own_row() + lane_index() / 4 + r * 8, chunk = own_column() / 8 + j;
                float weight[2], d[2];
#pragma unroll
                for (int c = 0; c < 2; c++) {
                    int streamed = chunk * 8 + lane_index() % 4 * 2 + c;
                    float base = KEYS ? shared.statistic[0][streamed] : sum_log[r];
                    float mean = KEYS ? shared.statistic[1][streamed] : product[r];
                    unsigned query = KEYS ? column + streamed : first + row;
                    unsigned key = KEYS ? first + row : column + streamed;
                    bool seen = key < p.k.rows && (!p.causal || key <= query);
                    weight[c] = seen ? exp2_approximate(s[j][2 * r + c] * p.scale - base * LOG2_E) : 0.0f;
                    d[c] = weight[c] * (slopes[j][2 * r + c] - mean);
                }
                if (KEYS) store_pair<64>(shared.weights[0], row, chunk, weight[0], weight[1]);
                store_pair<64>(shared.weights[1], row, chunk, d[0], d[1]);
            }
    }

    __device__ __forceinline__ void gather(WideSums<T, 2>& sums, const T* weights) {
        for (int step = 0; step < 4; step++) {
            const T* slice = next();
            unsigned a[2][4];
#pragma unroll
            for (int i = 0; i < 2; i++) load_left<64>(a[i], weights, i * 16, step * 2);
            sums.template add_rows<0>(a, slice);
            slice = next();
            sums.template add_rows<1>(a, slice);
        }
    }

    __device__ __forceinline__ void write(const Rows& target, const WideSums<T, 2>& sums, float factor, T* tile) {
        if (!target.data) return;
#pragma unroll
        for (int i = 0; i < 2; i++)
#pragma unroll
            for (int r = 0; r < 2; r++) sums.store_row(tile, i, r, factor);
        __syncthreads();
        T* to = const_cast<T*>(head_of<T>(target, image, head, p.width));
        copy_rows<WIDE_OWN>(to, tile, first, target.rows, target.stride, p.width);
    }

    __device__ __forceinline__ void run() {
        const Rows &a = KEYS ? p.k : p.q, &b = KEYS ? p.v : p.gradient;
        load_rows<T, WIDE_OWN, WIDE, WIDE_THREADS>(shared.own[0], head_of<T>(a, image, head, p.width), first, a.rows,
                                                   a.stride, 0, p.width);
        load_rows<T, WIDE_OWN, WIDE, WIDE_THREADS>(shared.own[1], head_of<T>(b, image, head, p.width), first, b.rows,
                                                   b.stride, 0, p.width);
        slices.start([&](int number, T* to) { load(number, to); });
#pragma unroll
        for (int r = 0; r < 2; r++)
            if (!KEYS) {
                // Rows that are not there are computed, of zeros, and not written.
                unsigned query = first + own_row() + lane_index() / 4 + r * 8;
                bool inside = query < p.q.rows;
                sum_log[r] = inside ? p.sum_log[statistics() + query] : 0.0f;
                product[r] = inside ? p.products[statistics() + query] : 0.0f;
            }
        for (int tile = begin; tile < end; tile++) {
            float s[2][4], slopes[2][4];
            clear(s);
            clear(slopes);
            for (int slice = 0; slice < 8; slice++)
                add_columns(s, shared.own[0], own_row(), next(), own_column(), slice);
            for (int slice = 0; slice < 8; slice++)
                add_columns(slopes, shared.own[1], own_row(), next(), own_column(), slice);
            differentiate(s, slopes, tile * WIDE_TILE);
            gather(out[0], shared.weights[1]);
            if constexpr (KEYS) gather(out[1], shared.weights[0]);
        }
        // Own rows have been read, and have come where no tile streamed by.
        wait_async<0>();
        __syncthreads();
        write(p.first, out[0], p.scale * LN_2, shared.own[0]);
        if constexpr (KEYS) write(p.second, out[1], 1.0f, shared.own[1]);
    }
};

template <typename T>
__device__ void attention_dq_512(const AttentionBackwardParams& p) {
    WideBackward<T, false> kernel(p);
    kernel.run();
}
KERNEL_HALF(attention_dq_512, AttentionBackwardParams, 256, attention_dq_512)

template <typename T>
__device__ void attention_dkv_512(const AttentionBackwardParams& p) {
    WideBackward<T, true> kernel(p);
    kernel.run();
}
KERNEL_HALF(attention_dkv_512, AttentionBackwardParams, 256, attention_dkv_512)
