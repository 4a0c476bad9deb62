// Attention of one head of up to 512 columns, as the autoencoder has it.
//
// q [n, l, heads, width], k, v [n, m, heads, width] => out [n, l, heads, width], sum_log [n, heads, l].
// A block is 64 queries, held in shared memory; its 8 warps hold the [64, 512] sums, 64 columns each. Of a tile of
// 64 keys a warp scores 16 queries x 32 keys; the weights go through shared memory to all warps.
// Moves (2 l + 2 m l / 64) * width elements a head.
#include "attention/slices.cuh"

constexpr int WIDE_ROWS = 64;
// Of a tile: keys by columns, then values by rows.
constexpr int WIDE_SLICES = 16;

template <typename T>
struct WideShared {
    T q[WIDE_ROWS * WIDE];
    T weights[WIDE_ROWS * WIDE_TILE];
    T slices[SLICE_STAGES][SLICE];
    // of the two halves of a tile's keys
    float top[2][WIDE_ROWS];
    float sum[2][WIDE_ROWS];
    float factor[WIDE_ROWS];
};

template <typename T>
struct Wide {
    const AttentionParams& p;
    WideShared<T>& shared;
    Slices<T> slices;
    unsigned first, head, image;
    const T *keys, *values;
    int tiles;
    WideSums<T, 4> out;
    // of rows lane / 4 and lane / 4 + 8 of this warp's scores
    float top[2], sum[2];

    __device__ __forceinline__ explicit Wide(const AttentionParams& p)
        : p(p), shared(shared_as<WideShared<T>>()), slices(shared.slices) {
        static_assert(sizeof(WideShared<T>) == 99584, "src/ops/attention/plan.rs knows this");
        first = blockIdx.x * WIDE_ROWS, head = blockIdx.y, image = blockIdx.z;
        keys = head_of<T>(p.k, image, head, p.width), values = head_of<T>(p.v, image, head, p.width);
        tiles = divide_up(p.causal ? min(first + WIDE_ROWS, p.k.rows) : p.k.rows, unsigned(WIDE_TILE));
        top[0] = top[1] = minus_infinity();
        sum[0] = sum[1] = 0.0f;
        out.clear_all();
    }

    // Rows of scores and half of the keys that are this warp's.
    __device__ __forceinline__ static int own_row() { return warp_index() % 4 * 16; }
    __device__ __forceinline__ static int own_half() { return warp_index() / 4; }

    __device__ __forceinline__ void load(int number, T* to) const {
        int tile = number / WIDE_SLICES, slice = number % WIDE_SLICES;
        if (tile >= tiles) return;
        if (slice < 8)
            load_columns(to, p.k, keys, tile * WIDE_TILE, slice, p.width);
        else
            load_half_rows(to, p.v, values, tile * WIDE_TILE, slice - 8, p.width);
    }
    __device__ __forceinline__ const T* next() {
        return slices.next([&](int number, T* to) { load(number, to); });
    }

    // Scores become weights in shared memory, with the factors for what was gathered before.
    __device__ __forceinline__ void soften(float (&s)[4][4], unsigned key) {
        int lane = lane_index(), half = own_half();
        unsigned m = p.k.rows;
#pragma unroll
        for (int r = 0; r < 2; r++) {
            int row = own_row() + lane / 4 + r * 8;
            unsigned seen = p.causal ? min(first + row + 1, m) : m;
            float largest = minus_infinity();
#pragma unroll
            for (int j = 0; j < 4; j++)
#pragma unroll
                for (int c = 0; c < 2; c++) {
                    float& score = s[j][2 * r + c];
                    if (key + half * 32 + j * 8 + lane % 4 * 2 + c >= seen) score = minus_infinity();
                    largest = fmaxf(largest, score);
                }
            largest = quad_max(largest);
            if (lane % 4 == 0) shared.top[half][row] = largest;
        }
        __syncthreads();
#pragma unroll
        for (int r = 0; r < 2; r++) {
            int row = own_row() + lane / 4 + r * 8;
            // A first tile has a key that every row sees, so that this is finite.
            float grown = fmaxf(top[r], fmaxf(shared.top[0][row], shared.top[1][row]));
            float factor = exp2_approximate((top[r] - grown) * p.scale), base = grown * p.scale;
            if (half == 0 && lane % 4 == 0) shared.factor[row] = factor;
            top[r] = grown;
            sum[r] *= factor;
#pragma unroll
            for (int j = 0; j < 4; j++) {
                float low = exp2_approximate(s[j][2 * r] * p.scale - base);
                float high = exp2_approximate(s[j][2 * r + 1] * p.scale - base);
                sum[r] += low + high;
                store_pair<64>(shared.weights, row, half * 4 + j, low, high);
            }
        }
    }

    __device__ __forceinline__ void rescale() {
        float factor[4][2];
        bool any = false;
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int r = 0; r < 2; r++) {
                factor[i][r] = shared.factor[i * 16 + lane_index() / 4 + r * 8];
                any |= factor[i][r] != 1.0f;
            }
        if (!__any_sync(ALL_LANES, any)) return;
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int n = 0; n < 8; n++)
#pragma unroll
                for (int e = 0; e < 4; e++) out.sums[i][n][e] *= factor[i][e / 2];
    }

    __device__ __forceinline__ void gather() {
        for (int step = 0; step < 4; step++) {
            const T* slice = next();
            if (step == 0) rescale();
            unsigned a[4][4];
#pragma unroll
            for (int i = 0; i < 4; i++) load_left<64>(a[i], shared.weights, i * 16, step * 2);
            out.template add_rows<0>(a, slice);
            slice = next();
            out.template add_rows<1>(a, slice);
        }
    }

    __device__ __forceinline__ void finish() {
        int lane = lane_index();
        unsigned l = p.q.rows, stride = p.heads * p.width;
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float total = quad_sum(sum[r]);
            if (lane % 4 == 0) shared.sum[own_half()][own_row() + lane / 4 + r * 8] = total;
        }
        __syncthreads();
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int r = 0; r < 2; r++) {
                int row = i * 16 + lane / 4 + r * 8;
                out.store_row(shared.q, i, r, 1.0f / (shared.sum[0][row] + shared.sum[1][row]));
            }
        if (p.sum_log && own_half() == 0 && lane % 4 == 0)
#pragma unroll
            for (int r = 0; r < 2; r++) {
                int row = own_row() + lane / 4 + r * 8;
                if (first + row < l)
                    p.sum_log[(uint64_t(image) * p.heads + head) * l + first + row] =
                        top[r] * p.scale * LN_2 + logf(shared.sum[0][row] + shared.sum[1][row]);
            }
        __syncthreads();
        T* to = static_cast<T*>(p.out) + uint64_t(image) * l * stride + head * p.width;
        copy_rows<WIDE_ROWS>(to, shared.q, first, l, stride, p.width);
    }

    __device__ __forceinline__ void run() {
        const T* queries = head_of<T>(p.q, image, head, p.width);
        load_rows<T, WIDE_ROWS, WIDE, WIDE_THREADS>(shared.q, queries, first, p.q.rows, p.q.stride, 0, p.width);
        slices.start([&](int number, T* to) { load(number, to); });
        for (int tile = 0; tile < tiles; tile++) {
            float s[4][4];
            clear(s);
            for (int slice = 0; slice < 8; slice++) add_columns(s, shared.q, own_row(), next(), own_half() * 32, slice);
            soften(s, tile * WIDE_TILE);
            gather();
        }
        finish();
    }
};

template <typename T>
__device__ void attention_512(const AttentionParams& p) {
    Wide<T> kernel(p);
    kernel.run();
}
KERNEL_HALF(attention_512, AttentionParams, 256, attention_512)
