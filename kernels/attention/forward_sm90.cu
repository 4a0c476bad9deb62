// Attention of heads 64 wide on sm_90a: out = softmax(q k^T / 8) v, with the scores in registers only.
//
// q [n, l, heads, 64], k, v [n, m, heads, 64] => out [n, l, heads, 64], sum_log [n, heads, l].
// A block is 128 queries of one head: one thread has tiles of 128 keys and of their values copied to a ring in
// shared memory, two warpgroups have 64 queries each. A warpgroup issues the scores of a tile and, behind them, the
// products of the last tile's weights with their values, which the tensor cores work on beside its softmax. The two
// warpgroups take turns in issuing, so that one multiplies while the other is at its softmax (FlashAttention-3,
// Shah et al. 2024). Moves (2 l + 2 m l / 128) * 64 elements a head.
// architectures: 90a
#include "attention/tiles.cuh"
#include "common/tma.cuh"
#include "common/wgmma.cuh"

struct AttentionSm90Params {
    TensorMap q, k, v;  // [1, n, rows, columns] in boxes of [1, 1, 128, 64]
    void* out;
    float* sum_log;  // or absent
    unsigned l, m, heads;
    float scale;  // log2(e) / 8
    unsigned q_column, k_column, v_column;  // where the first head starts
    unsigned pad;
    uint64_t unused[2];
};
static_assert(sizeof(AttentionSm90Params) == 448, "src/ops/attention/sm90.rs mirrors this");

constexpr int HEAD = 64, TILE = 128, SLOTS = 8;
// Warps 0 to 7 multiply, warp 8 copies, the three behind it make its warpgroup whole.
constexpr unsigned MULTIPLIERS = 256;
constexpr unsigned TILE_BYTES = TILE * HEAD * 2;

template <typename T>
struct AttentionSm90Shared {
    T q[TILE * HEAD];
    T slot[SLOTS][TILE * HEAD];
    Mbarrier query, full[SLOTS], empty[SLOTS];
    // whose turn it is to issue
    Mbarrier turn[2];
};

// A place in the ring.
struct Slot {
    int index = 0;
    unsigned parity = 0;

    __device__ __forceinline__ void next() {
        if (++index == SLOTS) index = 0, parity ^= 1;
    }
};

template <typename T>
struct AttentionSm90 {
    const AttentionSm90Params& p;
    AttentionSm90Shared<T>& shared;
    unsigned first, head, image;
    int tiles;
    Slot slot;

    __device__ __forceinline__ explicit AttentionSm90(const AttentionSm90Params& p)
        : p(p), shared(shared_as<AttentionSm90Shared<T>>()) {
        static_assert(sizeof(shared) == 147608, "src/ops/attention/plan.rs knows this");
        first = blockIdx.x * TILE, head = blockIdx.y, image = blockIdx.z;
        tiles = divide_up(p.m, unsigned(TILE));
    }

    __device__ __forceinline__ void run() {
        if (thread() == 0) {
            init_mbarrier(shared.query, 1);
            for (int i = 0; i < SLOTS; i++) {
                init_mbarrier(shared.full[i], 1);
                init_mbarrier(shared.empty[i], MULTIPLIERS / 32);
            }
            for (Mbarrier& turn : shared.turn) init_mbarrier(turn, 4);
            fence_mbarriers();
        }
        __syncthreads();
        if (warp_index() >= MULTIPLIERS / 32) {
            shrink_registers<40>();
            if (thread() == MULTIPLIERS) copy();
        } else {
            grow_registers<232>();
            attend();
        }
    }

    // --- the thread that copies ----------------------------------------------------------------------------

    __device__ __forceinline__ void copy_tile(T* to, const TensorMap& map, Mbarrier& full, unsigned column,
                                              int row) const {
        arrive_expecting(full, TILE_BYTES);
        copy_box(to, map, full, {int(column + head * HEAD), row, int(image), 0});
    }

    __device__ __forceinline__ void bring(const TensorMap& map, unsigned column, int tile) {
        wait(shared.empty[slot.index], slot.parity ^ 1);
        copy_tile(shared.slot[slot.index], map, shared.full[slot.index], column, tile * TILE);
        slot.next();
    }

    // In the order in which the tiles are multiplied: keys are one tile ahead of values.
    __device__ __forceinline__ void copy() {
        copy_tile(shared.q, p.q, shared.query, p.q_column, first);
        bring(p.k, p.k_column, 0);
        for (int tile = 1; tile < tiles; tile++) {
            bring(p.k, p.k_column, tile);
            bring(p.v, p.v_column, tile - 1);
        }
        bring(p.v, p.v_column, tiles - 1);
    }

    // --- the warpgroups that multiply -------------------------------------------------------------------------

    __device__ __forceinline__ static unsigned group() { return warp_index() / 4; }

    // The slot that comes next, once it is full.
    __device__ __forceinline__ int take() {
        int index = slot.index;
        wait(shared.full[index], slot.parity);
        slot.next();
        return index;
    }
    __device__ __forceinline__ void give_back(int index) {
        if (lane_index() == 0) arrive(shared.empty[index]);
    }

    // The first warpgroup begins; round counts a warpgroup's turns.
    __device__ __forceinline__ void await_turn(int round) {
        wait(shared.turn[group()], (round + 1 + group()) & 1);
    }
    __device__ __forceinline__ void pass_turn() {
        if (lane_index() == 0) arrive(shared.turn[group() ^ 1]);
    }

    // Issues scores = queries . keys^T.
    __device__ __forceinline__ void score(float (&scores)[64], const T* keys) const {
        uint64_t a = describe_tile(shared.q + group() * (64 * HEAD)), b = describe_tile(keys);
#pragma unroll
        for (int k = 0; k < HEAD / 16; k++) multiply<T>(scores, advance_tile(a, k), advance_tile(b, k), k > 0);
        commit_products();
    }

    // Issues out += weights . values, or = for the first tile.
    __device__ __forceinline__ void gather(float (&out)[32], const unsigned (&weights)[TILE / 16][4], const T* values,
                                           bool keep) const {
        uint64_t b = describe_tile(values);
#pragma unroll
        for (int k = 0; k < TILE / 16; k++) multiply_rows<T>(out, weights[k], advance_rows(b, k), keep || k > 0);
        commit_products();
    }

    // Scores become weights relative to the largest score so far; `factor` takes what was gathered to that.
    __device__ __forceinline__ void soften(float (&scores)[64], int tile, float (&top)[2], float (&sum)[2],
                                           float (&factor)[2]) const {
        unsigned first_key = tile * TILE;
        if (first_key + TILE > p.m)
#pragma unroll
            for (int i = 0; i < 64; i++)
                if (first_key + i / 4 * 8 + lane_index() % 4 * 2 + i % 2 >= p.m) scores[i] = minus_infinity();
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float largest = top[r];
#pragma unroll
            for (int i = 2 * r; i < 64; i += 4) largest = fmaxf(largest, fmaxf(scores[i], scores[i + 1]));
            // A first tile has a key, so that this is finite.
            float grown = quad_max(largest), base = grown * p.scale;
            factor[r] = exp2_approximate((top[r] - grown) * p.scale);
            top[r] = grown;
            sum[r] *= factor[r];
#pragma unroll
            for (int i = 2 * r; i < 64; i += 4)
#pragma unroll
                for (int c = i; c < i + 2; c++) {
                    scores[c] = exp2_approximate(scores[c] * p.scale - base);
                    sum[r] += scores[c];
                }
        }
    }

    // The weights as A of the products with the values: the registers already lie as it wants.
    __device__ __forceinline__ static void pack(unsigned (&weights)[TILE / 16][4], const float (&scores)[64]) {
#pragma unroll
        for (int k = 0; k < TILE / 16; k++)
#pragma unroll
            for (int i = 0; i < 4; i++) weights[k][i] = pack_pair<T>(scores[8 * k + 2 * i], scores[8 * k + 2 * i + 1]);
    }

    __device__ __forceinline__ void attend() {
        float scores[64], out[32], factor[2];
        float top[2] = {minus_infinity(), minus_infinity()}, sum[2] = {0.0f, 0.0f};
        unsigned weights[TILE / 16][4];
        wait(shared.query, 0);
        int keys = take();
        await_turn(0);
        pin(scores);
        fence_products();
        score(scores, shared.slot[keys]);
        pass_turn();
        wait_products<0>();
        pin(scores);
        give_back(keys);
        soften(scores, 0, top, sum, factor);
        pack(weights, scores);
        if (tiles > 1) keys = take();
        for (int tile = 1; tile < tiles; tile++) {
            int values = take();
            await_turn(tile);
            pin(scores);
            pin(out);
            fence_products();
            score(scores, shared.slot[keys]);
            gather(out, weights, shared.slot[values], tile > 1);
            pass_turn();
            wait_products<1>();
            pin(scores);
            give_back(keys);
            soften(scores, tile, top, sum, factor);
            pin(scores);
            // This loop also keeps the assembler from waiting for the products with the values before it comes to
            // the softmax, which is to be done beside them.
            if (tile + 1 < tiles) keys = take();
            wait_products<0>();
            pin(out);
            give_back(values);
            // Most tiles raise no row's largest score.
            if (__any_sync(ALL_LANES, factor[0] != 1.0f || factor[1] != 1.0f)) {
#pragma unroll
                for (int i = 0; i < 32; i++) out[i] *= factor[i / 2 % 2];
            }
            pack(weights, scores);
        }
        int values = take();
        pin(out);
        fence_products();
        gather(out, weights, shared.slot[values], tiles > 1);
        wait_products<0>();
        pin(out);
        finish(out, top, sum);
    }

    // Divides by the weights' sums and writes the rows, through this warp's own part of the tile of queries.
    __device__ __forceinline__ void finish(const float (&out)[32], const float (&top)[2], const float (&sum)[2]) {
        int lane = lane_index(), own = warp_index() * 16;
#pragma unroll
        for (int r = 0; r < 2; r++) {
            int row = own + lane / 4 + r * 8;
            float total = quad_sum(sum[r]), inverse = 1.0f / total;
#pragma unroll
            for (int d = 0; d < HEAD / 8; d++)
                store_pair<HEAD>(shared.q, row, d, out[4 * d + 2 * r] * inverse, out[4 * d + 2 * r + 1] * inverse);
            if (p.sum_log && lane % 4 == 0 && first + row < p.l)
                p.sum_log[(uint64_t(image) * p.heads + head) * p.l + first + row] =
                    top[r] * p.scale * LN_2 + logf(total);
        }
        __syncwarp();
        unsigned stride = p.heads * HEAD;
        T* to = static_cast<T*>(p.out) + uint64_t(image) * p.l * stride + head * HEAD;
#pragma unroll
        for (int i = 0; i < 16 * HEAD / 8 / 32; i++) {
            int item = i * 32 + lane, row = own + item / (HEAD / 8), chunk = item % (HEAD / 8);
            if (first + row < p.l)
                copy_chunk<HEAD>(to + uint64_t(first + row) * stride + chunk * 8, shared.q, row, chunk);
        }
    }
};

template <typename T>
__device__ void attention_64_sm90(const AttentionSm90Params& p) {
    AttentionSm90<T> kernel(p);
    kernel.run();
}
KERNEL_HALF(attention_64_sm90, AttentionSm90Params, 384, attention_64_sm90)
