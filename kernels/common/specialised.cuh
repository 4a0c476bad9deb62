// Products of tiles on sm_90a by specialised warps, for plain and implicit GEMMs: one thread has tiles copied
// to a ring in shared memory, two warpgroups multiply them, and blocks stay for one tile after the other.
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
    unsigned steps;  // tiles along k
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

template <typename T, int BN, int B_ROW = 64>
struct Specialised {
    static constexpr int BM = TILE_ROWS, BK = 64;
    static constexpr int SUMS = BN / 2;
    // as many as fit beside the staging memory
    static constexpr int STAGES = BN == 128 ? 6 : BN == 160 ? 5 : 4;
    // A warp's 16 rows of 32 sums on their way to memory; 8 floats of padding put rows in different banks.
    static constexpr int CHUNK = 32, STAGING_ROW = CHUNK + 8;
    static_assert(sizeof(T) == 2, "tensor cores multiply halves");
    static_assert(BN % CHUNK == 0, "sums leave by whole chunks");

    struct Stage {
        T a[BM * BK];
        T b[BN * BK];
    };
    static_assert(sizeof(Stage) % 1024 == 0, "the swizzle counts rows from multiples of 1024 bytes");
    struct Shared {
        Stage stage[STAGES];
        float staging[MULTIPLIERS / 32][16 * STAGING_ROW];
        Mbarrier full[STAGES], empty[STAGES];
    };
    static_assert(sizeof(Shared) == STAGES * (BM + BN) * BK * 2 + 20480 + STAGES * 16,
                  "src/ops/specialised.rs computes this");
    static_assert(sizeof(Shared) <= 227 * 1024, "a block of sm_90 has 227 KiB");

    // A place in the ring.
    struct Place {
        int stage = 0;
        unsigned parity = 0;

        __device__ __forceinline__ void next() {
            if (++stage == STAGES) stage = 0, parity ^= 1;
        }
    };

    // This block's parts of tiles one after the other: act(tile, split, first step, step behind the last).
    template <typename Act>
    static __device__ __forceinline__ void for_each_part(const Split& p, Act act) {
        for (unsigned unit = blockIdx.x; unit < p.tiles * p.splits; unit += gridDim.x) {
            unsigned split = unit / p.tiles;
            act(unit % p.tiles, split, p.steps * split / p.splits, p.steps * (split + 1) / p.splits);
        }
    }

    // load(tile, step, stage, barrier) starts the copies of one step, of whole boxes. combine(tile, sums) makes
    // of the sums, where they lie in registers, what the first COLUMNS columns hold; a product that needs it has
    // no splits. write(tile, row, column, values) gets eight consecutive columns of a row of a finished tile.
    template <int COLUMNS, typename Load, typename Combine, typename Write>
    static __device__ __forceinline__ void run(Shared& shared, const Split& p, Load load, Combine combine,
                                               Write write) {
        if (thread() == 0) {
            for (int i = 0; i < STAGES; i++) {
                init_mbarrier(shared.full[i], 1);
                init_mbarrier(shared.empty[i], MULTIPLIERS / 32);
            }
            fence_mbarriers();
        }
        __syncthreads();
        if (warp_index() >= MULTIPLIERS / 32) {
            shrink_registers<40>();
            if (thread() == MULTIPLIERS) copy(shared, p, load);
        } else {
            grow_registers<232>();
            multiply_all<COLUMNS>(shared, p, combine, write);
        }
    }

    template <typename Load>
    static __device__ __forceinline__ void copy(Shared& shared, const Split& p, Load load) {
        Place place;
        for_each_part(p, [&](unsigned tile, unsigned, unsigned first, unsigned end) {
            for (unsigned step = first; step < end; step++, place.next()) {
                Mbarrier& full = shared.full[place.stage];
                wait(shared.empty[place.stage], place.parity ^ 1);
                arrive_expecting(full, sizeof(Stage));
                load(tile, step, shared.stage[place.stage], full);
            }
        });
    }

    template <int COLUMNS, typename Combine, typename Write>
    static __device__ __forceinline__ void multiply_all(Shared& shared, const Split& p, Combine combine, Write write) {
        Place place;
        for_each_part(p, [&](unsigned tile, unsigned split, unsigned first, unsigned end) {
            float sum[SUMS];
            multiply_part(shared, place, end - first, sum);
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
    static __device__ __forceinline__ uint64_t columns_of_b(const Stage& stage, int k) {
        constexpr int STEPS = B_ROW / 16;
        return advance_tile(describe_tile<B_ROW * 2>(stage.b + k / STEPS * (BN * B_ROW)), k % STEPS);
    }

    // The sums over `steps` tiles of the ring. A stage is given back once the products of the next are issued
    // and its own are done, so that the tensor cores never wait for that.
    static __device__ __forceinline__ void multiply_part(Shared& shared, Place& place, unsigned steps,
                                                         float (&sum)[SUMS]) {
        int half = thread() / 128 * (64 * BK), before = 0;
        for (unsigned step = 0; step < steps; step++, place.next()) {
            wait(shared.full[place.stage], place.parity);
            Stage& stage = shared.stage[place.stage];
            uint64_t a = describe_tile(stage.a + half);
            pin(sum);
            fence_products();
#pragma unroll
            for (int k = 0; k < BK / 16; k++)
                multiply<T>(sum, advance_tile(a, k), columns_of_b(stage, k), step > 0 || k > 0);
            commit_products();
            pin(sum);
            if (step > 0) {
                wait_products<1>();
                if (lane_index() == 0) arrive(shared.empty[before]);
            }
            before = place.stage;
        }
        wait_products<0>();
        pin(sum);
        if (lane_index() == 0) arrive(shared.empty[before]);
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
