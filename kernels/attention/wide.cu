// Attention of one head of up to 512 columns, as the autoencoder has it.
//
// q [n, l, heads, width], k, v [n, m, heads, width] => out [n, l, heads, width], sum_log [n, heads, l].
// A block is 64 queries, held in shared memory; its 8 warps hold the [64, 512] sums, 64 columns each. Keys and
// values come by tiles of 64 rows, 16 slices of 8 KiB a tile, three slices on their way: first keys, 64 columns a
// slice, of which a warp scores 16 queries x 32 keys; then, the weights being in shared memory, values, 16 rows
// of one half of the columns a slice. Shared memory stays below the 99 KiB of sm_86, sm_89 and sm_120.
// Moves (2 l + 2 m l / 64) * width elements a head.
#include "attention/tiles.cuh"

constexpr int WIDE = 512, WIDE_ROWS = 64, WIDE_THREADS = 256;
constexpr int WIDE_SLICES = 16, WIDE_STAGES = 3;

template <typename T>
struct WideShared {
    T q[WIDE_ROWS * WIDE];
    T weights[WIDE_ROWS * WIDE_ROWS];
    T slice[WIDE_STAGES][4096];
    // of the two halves of a tile's keys
    float top[2][WIDE_ROWS];
    float sum[2][WIDE_ROWS];
    float factor[WIDE_ROWS];
};

template <typename T>
struct Wide {
    WideShared<T>& shared;
    const AttentionParams& p;
    unsigned first, head, image;
    const T *keys, *values;
    int tiles, stage, coming;
    float out[4][8][4];
    // of rows lane / 4 and lane / 4 + 8 of this warp's scores
    float top[2], sum[2];

    __device__ __forceinline__ Wide(const AttentionParams& p) : shared(shared_as<WideShared<T>>()), p(p) {
        static_assert(sizeof(WideShared<T>) == 99584, "src/ops/attention/plan.rs knows this");
        first = blockIdx.x * WIDE_ROWS, head = blockIdx.y, image = blockIdx.z;
        keys = head_of<T>(p.k, image, head, p.width), values = head_of<T>(p.v, image, head, p.width);
        tiles = divide_up(p.causal ? min(first + WIDE_ROWS, p.k.rows) : p.k.rows, unsigned(WIDE_ROWS));
        stage = coming = 0;
        top[0] = top[1] = MINUS_INFINITY;
        sum[0] = sum[1] = 0.0f;
#pragma unroll
        for (int i = 0; i < 4; i++) clear(out[i]);
    }

    // Rows of scores and half of the keys that are this warp's.
    __device__ __forceinline__ static int own_row() { return warp_index() % 4 * 16; }
    __device__ __forceinline__ static int own_half() { return warp_index() / 4; }

    // Starts the copy of the slice numbered `coming` into its stage, if there is one.
    __device__ __forceinline__ void load_next() {
        int tile = coming / WIDE_SLICES, slice = coming % WIDE_SLICES;
        T* to = shared.slice[coming % WIDE_STAGES];
        coming++;
        if (tile < tiles) {
            unsigned key = tile * WIDE_ROWS;
            if (slice < 8)
                load_rows<T, 64, 64, WIDE_THREADS>(to, keys, key, p.k.rows, p.k.stride, slice * 64, p.width);
            else
                load_rows<T, 16, 256, WIDE_THREADS>(to, values, key + (slice - 8) / 2 * 16, p.v.rows, p.v.stride,
                                                    slice % 2 * 256, p.width);
        }
        commit_async();
    }

    // The next slice, once it is there.
    __device__ __forceinline__ const T* next() {
        wait_async<WIDE_STAGES - 2>();
        // The stage loaded next is the one that every warp has finished with before this barrier.
        __syncthreads();
        load_next();
        const T* slice = shared.slice[stage];
        stage = stage == WIDE_STAGES - 1 ? 0 : stage + 1;
        return slice;
    }

    __device__ __forceinline__ void score(float (&s)[4][4]) {
        clear(s);
        for (int slice = 0; slice < 8; slice++) {
            const T* tile = next();
#pragma unroll
            for (int d = 0; d < 4; d++) {
                unsigned a[4];
                load_left<WIDE>(a, shared.q, own_row(), slice * 8 + d * 2);
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    unsigned b[4];
                    load_right<64>(b, tile, own_half() * 32 + j * 16, d * 2);
                    multiply_pair<T>(s[2 * j], s[2 * j + 1], a, b);
                }
            }
        }
    }

    // Scores become weights in shared memory, with the factors for what was gathered before.
    __device__ __forceinline__ void soften(float (&s)[4][4], unsigned key) {
        int lane = lane_index(), half = own_half();
        unsigned m = p.k.rows;
#pragma unroll
        for (int r = 0; r < 2; r++) {
            int row = own_row() + lane / 4 + r * 8;
            unsigned seen = p.causal ? min(first + row + 1, m) : m;
            float largest = MINUS_INFINITY;
#pragma unroll
            for (int j = 0; j < 4; j++)
#pragma unroll
                for (int c = 0; c < 2; c++) {
                    float& score = s[j][2 * r + c];
                    if (key + half * 32 + j * 8 + lane % 4 * 2 + c >= seen) score = MINUS_INFINITY;
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
                for (int e = 0; e < 4; e++) out[i][n][e] *= factor[i][e / 2];
    }

    // This warp's columns: 32 of each half.
    __device__ __forceinline__ void gather() {
        for (int step = 0; step < 4; step++) {
            unsigned a[4][4];
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const T* tile = next();
                if (half == 0) {
                    if (step == 0) rescale();
#pragma unroll
                    for (int i = 0; i < 4; i++) load_left<64>(a[i], shared.weights, i * 16, step * 2);
                }
#pragma unroll
                for (int n = 0; n < 2; n++) {
                    unsigned b[4];
                    load_right_rows<256>(b, tile, 0, warp_index() * 4 + n * 2);
#pragma unroll
                    for (int i = 0; i < 4; i++)
                        multiply_pair<T>(out[i][half * 4 + 2 * n], out[i][half * 4 + 2 * n + 1], a[i], b);
                }
            }
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
                float inverse = 1.0f / (shared.sum[0][row] + shared.sum[1][row]);
#pragma unroll
                for (int n = 0; n < 8; n++)
                    store_pair<WIDE>(shared.q, row, n / 4 * 32 + warp_index() * 4 + n % 4,
                                     out[i][n][2 * r] * inverse, out[i][n][2 * r + 1] * inverse);
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
        for (int item = thread(); item < WIDE_ROWS * WIDE / 8; item += WIDE_THREADS) {
            int row = item / (WIDE / 8), chunk = item % (WIDE / 8);
            if (first + row < l && chunk * 8 < p.width)
                copy_chunk<WIDE>(to + uint64_t(first + row) * stride + chunk * 8, shared.q, row, chunk);
        }
    }

    __device__ __forceinline__ void run() {
        const T* queries = head_of<T>(p.q, image, head, p.width);
        load_rows<T, WIDE_ROWS, WIDE, WIDE_THREADS>(shared.q, queries, first, p.q.rows, p.q.stride, 0, p.width);
        for (int i = 0; i < WIDE_STAGES - 1; i++) load_next();
        for (int tile = 0; tile < tiles; tile++) {
            float s[4][4];
            score(s);
            soften(s, tile * WIDE_ROWS);
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
