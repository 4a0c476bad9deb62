// Planted bugs of what runs beside the warps of sm_90a: copied boxes, mbarriers, wgmma. With `bug` 0 the same
// code is right.
#include "common/tma.cuh"
#include "common/vector.cuh"
#include "common/wgmma.cuh"

struct PlantedSm90Params {
    TensorMap a;  // [64, 64] f16, one box
    TensorMap b;  // [128, 64] f16, one box
    float* out;   // [64, 128]
    unsigned bug, pad;
    uint64_t unused[6];
};
static_assert(sizeof(PlantedSm90Params) == 320, "tests/kernels/detectors_sm90.rs mirrors this");

struct PlantedSm90Shared {
    f16 a[64 * 64];
    f16 b[128 * 64];
    Mbarrier full, empty;
};

constexpr unsigned A_BYTES = 64 * 64 * 2, B_BYTES = 128 * 64 * 2;

// out[i] = a[i / 64][i % 64] of the first 256 elements, by 256 threads. bug 1: nobody waits. bug 2: more bytes are
// expected than come. bug 3: fewer. bug 4: the new barrier is not shown to the copy engine. bug 5: only one warp
// waits. bug 6: a second copy overwrites what is read. bug 7: the wrong parity. bug 8: one arrival too many. bug 9:
// the block ends while a copy is on its way. bug 10: a misaligned destination. bug 11: the barrier is used with no
// barrier of the block behind its initialisation. bug 12: two coordinates for what is no tensor map. bug 13: no
// swizzle on the reader's side: wrong numbers.
__device__ void copied_box(const PlantedSm90Params& p) {
    auto& shared = shared_as<PlantedSm90Shared>();
    unsigned i = thread();
    if (i == 0) {
        init_mbarrier(shared.full, 1);
        if (p.bug != 4) fence_mbarriers();
    }
    if (p.bug != 11) __syncthreads();
    if (i == 0) {
        arrive_expecting(shared.full, p.bug == 2 ? A_BYTES + 16 : p.bug == 3 ? A_BYTES - 16 : A_BYTES);
        if (p.bug == 8) arrive(shared.full);
        const auto& map = p.bug == 12 ? *reinterpret_cast<const TensorMap*>(&p.out) : p.a;
        copy_box(shared.a + (p.bug == 10 ? 8 : 0), map, shared.full, {0, 0});
    }
    if (p.bug == 9) {
        p.out[i] = 0.0f;
        return;
    }
    if (p.bug != 1 && (p.bug != 5 || i < 32)) wait(shared.full, p.bug == 7 ? 1 : 0);
    if (p.bug == 6) __syncthreads();
    unsigned row = i / 64, chunk = i % 64 / 8;
    p.out[i] = to_f32(shared.a[row * 64 + (p.bug == 13 ? chunk : chunk ^ row % 8) * 8 + i % 8]);
    if (p.bug == 6 && i == 0) {
        arrive_expecting(shared.full, A_BYTES);
        copy_box(shared.a, p.a, shared.full, {0, 0});
        wait(shared.full, 1);
    }
}
KERNEL(planted_copied_box, PlantedSm90Params, 256, copied_box)

// out = a . b^T by warps 0 to 3, twice, the tiles copied by warp 4 each time. bug 1: no fence before the products.
// bug 2: the sums are read before they are there. bug 3: a warp does not take part. bug 4: the tiles are given back
// before the products are done. bug 5: they are given back by three warps of four. bug 6: nobody waits for the
// tiles. bug 7: a tile beyond shared memory. Wrong numbers show the others. bug 8: the tiles are described with the
// swizzle of shorter rows. bug 9: k advances by too little. bug 10: the sums are written before they are there.
__device__ void products(const PlantedSm90Params& p) {
    auto& shared = shared_as<PlantedSm90Shared>();
    unsigned i = thread();
    if (i == 0) {
        init_mbarrier(shared.full, 1);
        init_mbarrier(shared.empty, p.bug == 5 ? 3 : 4);
        fence_mbarriers();
    }
    __syncthreads();
    if (warp_index() == 4) {
        if (lane_index() != 0) return;
        for (unsigned round = 0; round < 2; round++) {
            wait(shared.empty, round & 1 ^ 1);
            arrive_expecting(shared.full, A_BYTES + B_BYTES);
            copy_box(shared.a, p.a, shared.full, {0, 0});
            copy_box(shared.b, p.b, shared.full, {0, 0});
        }
        return;
    }
    float sum[64];
    auto write = [&] {
        for (unsigned r = 0; r < 64; r++)
            p.out[(i / 32 * 16 + i % 32 / 4 + r / 2 % 2 * 8) * 128 + r / 4 * 8 + i % 4 * 2 + r % 2] = sum[r];
    };
    for (unsigned round = 0; round < 2; round++) {
        if (p.bug != 6) wait(shared.full, round & 1);
        uint64_t a = describe_tile(shared.a), b = describe_tile(p.bug == 7 ? shared.b + 64 * 64 : shared.b);
        if (p.bug == 8) a ^= 3ull << 62;
        if (p.bug == 3 && warp_index() == 2) return;
        if (p.bug != 1) fence_products();
        for (int k = 0; k < 4; k++)
            multiply<f16>(sum, advance_tile(a, p.bug == 9 ? k / 2 : k), advance_tile(b, k), k > 0);
        commit_products();
        bool gives = lane_index() == 0 && (p.bug != 5 || warp_index() != 1);
        if (p.bug == 4) {
            if (gives) arrive(shared.empty);
            // the copies start now
            sync_threads(2, 128);
        }
        if (p.bug == 10) write();
        if (p.bug != 2) wait_products<0>();
        if (p.bug != 4 && gives) arrive(shared.empty);
    }
    if (p.bug != 10) write();
}
KERNEL(planted_products, PlantedSm90Params, 160, products)

// out = the product of ones that the threads write and show by a fence. bug 1: they do not.
__device__ void shown_tile(const PlantedSm90Params& p) {
    auto& shared = shared_as<PlantedSm90Shared>();
    unsigned i = thread();
    for (unsigned at = i; at < 64 * 64; at += 128) shared.a[at] = from_f32<f16>(1.0f);
    for (unsigned at = i; at < 128 * 64; at += 128) shared.b[at] = from_f32<f16>(1.0f);
    if (p.bug != 1) show_to_products();
    __syncthreads();
    float sum[64];
    fence_products();
    for (int k = 0; k < 4; k++)
        multiply<f16>(sum, advance_tile(describe_tile(shared.a), k), advance_tile(describe_tile(shared.b), k), k > 0);
    commit_products();
    wait_products<0>();
    for (unsigned r = 0; r < 64; r++) p.out[r * 128 + i] = sum[r];
}
KERNEL(planted_shown_tile, PlantedSm90Params, 128, shown_tile)
