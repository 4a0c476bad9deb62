// Products of tiles on sm_90a by specialised warps, for plain and implicit GEMMs: one thread has tiles copied
// to rings in shared memory, two warpgroups multiply them, and blocks stay for one tile after the other.
//
// A tile is 128 x BN, 64 rows a warpgroup, over 64 of k at a time. In shared memory a row of a is 64 halves with
// the 128-byte swizzle; b is [BN, 64] likewise, or two tiles [BN, 32], one behind the other, with the swizzle of
// 64 bytes. With splits, several blocks sum parts of k of one tile and leave their sums in memory, which a second
// launch adds in the order of k: among all blocks, where the last block of a tile would be alone with it.
#pragma once

#include "common/tma.cuh"
#include "common/vector.cuh"
#include "common/wgmma.cuh"

// Mirrored by SplitParams in src/ops/specialised.rs.
struct Split {
    float* partial;  // [splits, tiles, 128, width], or absent without splits
    unsigned tiles, splits;
    unsigned steps;  // slots of a along k
    unsigned width;  // BN
};
static_assert(sizeof(Split) == 24, "src/ops/specialised.rs mirrors this");

// Warps 0 to 7 multiply, warp 8 copies, the three behind it make its warpgroup whole.
constexpr unsigned MULTIPLIERS = 256;
constexpr unsigned TILE_ROWS = 128;

// Where the sums of a part of a tile are.
__device__ __forceinline__ float* part_of(const Split& p, unsigned tile, unsigned split, unsigned row,
                                          unsigned column) {
    return p.partial + ((uint64_t(split) * p.tiles + tile) * TILE_ROWS + row) * p.width + column;
}

// The second launch of a product with splits: each thread adds eight columns of a row and hands them to
// write(tile, row, column, values).
template <typename Write>
__device__ __forceinline__ void join_parts(const Split& p, Write write) {
    unsigned item = blockIdx.x * blockDim.x + thread(), across = p.width / 8;
    unsigned tile = item / (TILE_ROWS * across), row = item / across % TILE_ROWS, column = item % across * 8;
    if (tile >= p.tiles) return;
    float sum[8] = {};
#pragma unroll 4
    for (unsigned split = 0; split < p.splits; split++) {
        float values[8];
        load_8(part_of(p, tile, split, row, column), values);
#pragma unroll
        for (int i = 0; i < 8; i++) sum[i] += values[i];
    }
    write(tile, row, column, sum);
}

// Slots of a ring in shared memory; `full` and `empty` tell of each.
template <typename Slot, int SLOTS>
struct Ring {
    Slot slot[SLOTS];
    static_assert(sizeof(Slot) % 1024 == 0, "the swizzle counts rows from multiples of 1024 bytes");

    // Where a thread is in the ring.
    struct Place {
        int slot = 0;
        unsigned parity = 0;

        __device__ __forceinline__ void next() {
            if (++slot == SLOTS) slot = 0, parity ^= 1;
        }
    };
};

template <int SLOTS>
struct RingBarriers {
    Mbarrier full[SLOTS], empty[SLOTS];

    __device__ __forceinline__ void init() {
        for (int i = 0; i < SLOTS; i++) {
            init_mbarrier(full[i], 1);
            init_mbarrier(empty[i], MULTIPLIERS / 32);
        }
    }

    // Waits for an empty slot, which `bytes` will fill.
    template <typename Place>
    __device__ __forceinline__ Mbarrier& take(const Place& place, unsigned bytes) {
        wait(empty[place.slot], place.parity ^ 1);
        arrive_expecting(full[place.slot], bytes);
        return full[place.slot];
    }
};

// The rows of a that a slot holds: the bytes that are copied, and from which row on they are the second
// warpgroup's.
struct Rows {
    unsigned bytes, second;
};

// With TAPS above 1, each step multiplies one slot of a, of some rows more, with so many tiles of b: for tap t its
// rows from 8 t on.
template <typename T, int BN, int B_ROW = 64, int TAPS = 1>
struct Specialised {
    static constexpr int BM = TILE_ROWS, BK = 64;
    static constexpr int SUMS = BN / 2;
    static constexpr int A_ROWS = TAPS == 1 ? BM : BM + 32;
    // as many as fit beside the staging memory
    static constexpr int B_SLOTS = TAPS == 1 ? (BN == 128 ? 6 : BN == 160 ? 5 : 4) : (BN == 128 ? 8 : BN == 160 ? 6 : 5);
    static constexpr int A_SLOTS = TAPS == 1 ? B_SLOTS : BN == 256 ? 2 : 3;
    // A warp's 16 rows of 32 sums on their way to memory; 8 floats of padding put rows in different banks.
    static constexpr int CHUNK = 32, STAGING_ROW = CHUNK + 8;
    static_assert(sizeof(T) == 2, "tensor cores multiply halves");
    static_assert(BN % CHUNK == 0, "sums leave by whole chunks");
    static_assert(8 * (TAPS - 1) <= 32, "taps stay within the rows of a slot");

    using A = T[A_ROWS * BK];
    using B = T[BN * BK];
    using PlaceA = typename Ring<A, A_SLOTS>::Place;
    using PlaceB = typename Ring<B, B_SLOTS>::Place;
    struct Shared {
        Ring<A, A_SLOTS> a;
        Ring<B, B_SLOTS> b;
        float staging[MULTIPLIERS / 32][16 * STAGING_ROW];
        RingBarriers<A_SLOTS> of_a;
        RingBarriers<B_SLOTS> of_b;
    };
    static_assert(sizeof(Shared) == A_SLOTS * (A_ROWS * BK * 2 + 16) + B_SLOTS * (BN * BK * 2 + 16) + 20480,
                  "src/ops/specialised.rs computes this");
    static_assert(sizeof(Shared) <= 227 * 1024, "a block of sm_90 has 227 KiB");

    // This block's parts of tiles one after the other: act(tile, split, first step, step behind the last).
    template <typename Act>
    static __device__ __forceinline__ void for_each_part(const Split& p, Act act) {
        for (unsigned unit = blockIdx.x; unit < p.tiles * p.splits; unit += gridDim.x) {
            unsigned split = unit / p.tiles;
            act(unit % p.tiles, split, p.steps * split / p.splits, p.steps * (split + 1) / p.splits);
        }
    }

    // load_a(tile, step, slot, barrier) and load_b(tile, step, tap, slot, barrier) start the copies of a slot, of
    // whole boxes. combine(tile, sums) makes of the sums, where they lie in registers, what the first COLUMNS columns
    // hold; a product that needs it has no splits. write(tile, row, column, values) gets eight consecutive columns of
    // a row of a finished tile.
    template <int COLUMNS, typename LoadA, typename LoadB, typename Combine, typename Write>
    static __device__ __forceinline__ void run(Shared& shared, const Split& p, Rows rows, LoadA load_a, LoadB load_b,
                                               Combine combine, Write write) {
        if (thread() == 0) {
            shared.of_a.init();
            shared.of_b.init();
            fence_mbarriers();
        }
        __syncthreads();
        if (warp_index() >= MULTIPLIERS / 32) {
            shrink_registers<40>();
            if (thread() == MULTIPLIERS) copy(shared, p, rows.bytes, load_a, load_b);
        } else {
            grow_registers<232>();
            multiply_all<COLUMNS>(shared, p, rows.second, combine, write);
        }
    }

    template <typename LoadA, typename LoadB>
    static __device__ __forceinline__ void copy(Shared& shared, const Split& p, unsigned bytes, LoadA load_a,
                                                LoadB load_b) {
        PlaceA a;
        PlaceB b;
        for_each_part(p, [&](unsigned tile, unsigned, unsigned first, unsigned end) {
            for (unsigned step = first; step < end; step++, a.next()) {
                load_a(tile, step, shared.a.slot[a.slot], shared.of_a.take(a, bytes));
                for (int tap = 0; tap < TAPS; tap++, b.next())
                    load_b(tile, step, tap, shared.b.slot[b.slot], shared.of_b.take(b, sizeof(B)));
            }
        });
    }

    template <int COLUMNS, typename Combine, typename Write>
    static __device__ __forceinline__ void multiply_all(Shared& shared, const Split& p, unsigned second, Combine combine,
                                                        Write write) {
        PlaceA a;
        PlaceB b;
        for_each_part(p, [&](unsigned tile, unsigned split, unsigned first, unsigned end) {
            float sum[SUMS];
            multiply_part(shared, a, b, thread() / 128 * second, end - first, sum);
            combine(tile, sum);
            drain<COLUMNS>(shared, sum, [&](unsigned row, unsigned column, float(&values)[8]) {
                if (p.splits > 1)
                    store_8(part_of(p, tile, split, row, column), values);
                else
                    write(tile, row, column, values);
            });
        });
    }

    // Columns 16 `k` to 16 `k` + 15 of b.
    static __device__ __forceinline__ uint64_t columns_of_b(const B& b, int k) {
        constexpr int STEPS = B_ROW / 16;
        return advance_tile(describe_tile<B_ROW * 2>(b + k / STEPS * (BN * B_ROW)), k % STEPS);
    }

    // The sums over `steps` slots of a, whose rows are this warpgroup's from `row` on. Slots are given back once the
    // next products are issued and their own are done, so that the tensor cores never wait for that.
    static __device__ __forceinline__ void multiply_part(Shared& shared, PlaceA& a, PlaceB& b, unsigned row,
                                                         unsigned steps, float (&sum)[SUMS]) {
        int used_a = 0, used_b = 0;
        for (unsigned step = 0; step < steps; step++, a.next()) {
            wait(shared.of_a.full[a.slot], a.parity);
#pragma unroll
            for (int tap = 0; tap < TAPS; tap++, b.next()) {
                wait(shared.of_b.full[b.slot], b.parity);
                uint64_t left = describe_tile(shared.a.slot[a.slot] + (row + 8 * tap) * BK);
                pin(sum);
                fence_products();
#pragma unroll
                for (int k = 0; k < BK / 16; k++)
                    multiply<T>(sum, advance_tile(left, k), columns_of_b(shared.b.slot[b.slot], k),
                                step > 0 || tap > 0 || k > 0);
                commit_products();
                pin(sum);
                if (step > 0 || tap > 0) {
                    wait_products<1>();
                    if (lane_index() == 0) {
                        arrive(shared.of_b.empty[used_b]);
                        if (tap == 0) arrive(shared.of_a.empty[used_a]);
                    }
                }
                used_b = b.slot;
            }
            used_a = a.slot;
        }
        wait_products<0>();
        pin(sum);
        if (lane_index() == 0) {
            arrive(shared.of_b.empty[used_b]);
            arrive(shared.of_a.empty[used_a]);
        }
    }

    // Hands the first COLUMNS columns of the sums out in rows: calls write(row, column, values) for eight
    // consecutive columns of a row of the tile.
    template <int COLUMNS, typename Write>
    static __device__ __forceinline__ void drain(Shared& shared, const float (&sum)[SUMS], Write write) {
        static_assert(COLUMNS % CHUNK == 0, "sums leave by whole chunks");
        float* own = shared.staging[warp_index()];
        int lane = lane_index(), row = warp_index() * 16;
        // What is done with the sums is compiled once; only their registers depend on the chunk.
#pragma unroll 1
        for (int chunk = 0; chunk < COLUMNS / CHUNK; chunk++) {
#pragma unroll
            for (int i = 0; i < COLUMNS / 2; i += 4) {
                if (i / (CHUNK / 2) != chunk) continue;
                float* at = own + lane / 4 * STAGING_ROW + i % (CHUNK / 2) * 2 + lane % 4 * 2;
                at[0] = sum[i], at[1] = sum[i + 1];
                at[8 * STAGING_ROW] = sum[i + 2], at[8 * STAGING_ROW + 1] = sum[i + 3];
            }
            __syncwarp();
#pragma unroll
            for (int item = lane; item < 16 * CHUNK / 8; item += 32) {
                int line = item / (CHUNK / 8), first = item % (CHUNK / 8) * 8;
                float values[8];
                load_8(own + line * STAGING_ROW + first, values);
                write(row + line, chunk * CHUNK + first, values);
            }
            __syncwarp();
        }
    }
};
