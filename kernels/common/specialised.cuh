// Products of tiles on sm_90a by specialised warps, for plain and implicit GEMMs: one thread has tiles copied
// to a ring in shared memory, two warpgroups multiply them, and blocks stay for one tile after the other.
//
// A tile is 128 x BN, 64 rows a warpgroup, over 64 of k at a time. A row of 64 halves in shared memory is 128
// bytes with the 128-byte swizzle. With splits, several blocks sum parts of k of one tile; each leaves its
// sums in memory, and the last adds them in the order of k.
#pragma once

#include "common/grid.cuh"
#include "common/tma.cuh"
#include "common/vector.cuh"
#include "common/wgmma.cuh"

// Mirrored by SplitParams in src/ops/gpu.rs.
struct Split {
    float* partial;      // [splits, tiles, 128 * BN], or absent without splits
    unsigned* arrived;   // [tiles] of zeros, before and after
    unsigned tiles, splits;
    unsigned steps;      // tiles along k
    unsigned pad;
};
static_assert(sizeof(Split) == 32, "src/ops/gpu.rs mirrors this");

// Warps 0 to 7 multiply, warp 8 copies, the three behind it make its warpgroup whole.
constexpr unsigned SPECIALISED_THREADS = 384, MULTIPLIERS = 256;

template <typename T, int BN>
struct Specialised {
    static constexpr int BM = 128, BK = 64;
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
        unsigned last, pad;
    };
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

    // load(tile, step, stage, barrier) starts the copies of one step, of whole boxes; finish(tile, sums) takes
    // the sums of a tile, 64 rows of which are this warpgroup's.
    template <typename Load, typename Finish>
    static __device__ __forceinline__ void run(Shared& shared, const Split& p, Load load, Finish finish) {
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
            multiply_all(shared, p, finish);
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

    template <typename Finish>
    static __device__ __forceinline__ void multiply_all(Shared& shared, const Split& p, Finish finish) {
        Place place;
        for_each_part(p, [&](unsigned tile, unsigned split, unsigned first, unsigned end) {
            float sum[SUMS];
            multiply_part(shared, place, end - first, sum);
            if (p.splits > 1 && !add_parts(shared, p, tile, split, sum)) return;
            finish(tile, sum);
        });
    }

    // The sums over `steps` tiles of the ring. A stage is given back once the products of the next are issued
    // and its own are done, so that the tensor cores never wait for that.
    static __device__ __forceinline__ void multiply_part(Shared& shared, Place& place, unsigned steps,
                                                         float (&sum)[SUMS]) {
        int half = thread() / 128 * (64 * BK), before = 0;
        for (unsigned step = 0; step < steps; step++, place.next()) {
            wait(shared.full[place.stage], place.parity);
            Stage& stage = shared.stage[place.stage];
            uint64_t a = describe_tile(stage.a + half), b = describe_tile(stage.b);
            pin(sum);
            fence_products();
#pragma unroll
            for (int k = 0; k < BK / 16; k++)
                multiply<T>(sum, advance_tile(a, k), advance_tile(b, k), step > 0 || k > 0);
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

    // Leaves the sums of a part in memory. In the last block of the tile: true, with the sums of all parts.
    static __device__ __forceinline__ bool add_parts(Shared& shared, const Split& p, unsigned tile, unsigned split,
                                                     float (&sum)[SUMS]) {
        auto place = [&](unsigned split, int i) {
            return p.partial + (uint64_t(split) * p.tiles + tile) * (BM * BN) + i * MULTIPLIERS + thread() * 4;
        };
#pragma unroll
        for (int i = 0; i < SUMS; i += 4)
            store_16_bytes(place(split, i), make_uint4(__float_as_uint(sum[i]), __float_as_uint(sum[i + 1]),
                                                       __float_as_uint(sum[i + 2]), __float_as_uint(sum[i + 3])));
        if (!arrive_last(p.arrived + tile, p.splits, shared.last, [] { sync_threads(1, MULTIPLIERS); })) return false;
#pragma unroll
        for (int i = 0; i < SUMS; i++) sum[i] = 0.0f;
        for (unsigned part = 0; part < p.splits; part++)
#pragma unroll
            for (int i = 0; i < SUMS; i += 4) {
                uint4 four = load_16_bytes(place(part, i));
                sum[i] += __uint_as_float(four.x), sum[i + 1] += __uint_as_float(four.y);
                sum[i + 2] += __uint_as_float(four.z), sum[i + 3] += __uint_as_float(four.w);
            }
        return true;
    }

    // Hands the first COLUMNS columns of the sums out in rows: calls write(row, column, values) for eight
    // consecutive columns of a row of the tile.
    template <int COLUMNS, typename Write>
    static __device__ __forceinline__ void drain(Shared& shared, const float (&sum)[SUMS], Write write) {
        static_assert(COLUMNS % CHUNK == 0, "sums leave by whole chunks");
        float* own = shared.staging[warp_index()];
        int lane = lane_index(), row = warp_index() * 16;
#pragma unroll
        for (int chunk = 0; chunk < COLUMNS / CHUNK; chunk++) {
#pragma unroll
            for (int j = 0; j < CHUNK / 8; j++) {
                float* at = own + lane / 4 * STAGING_ROW + j * 8 + lane % 4 * 2;
                int i = chunk * (CHUNK / 2) + j * 4;
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
