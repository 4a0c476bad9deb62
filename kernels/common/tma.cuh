// TMA for sm_90: one thread has a box of a tensor copied to shared memory. What lies outside of the tensor
// becomes zeros. The host encodes tensor, box and swizzle in a TensorMap (Gpu::tensor_map), which is part of
// the kernel's params.
//
// A row of the box is 128 bytes in eight chunks of 16, and chunk c of row r lies at place c ^ (r % 8): the tile
// starts at a multiple of 1024 bytes. Or it is 64 bytes in four chunks, c lies at c ^ (r / 2 % 4), and the tile
// starts at a multiple of 512.
#pragma once

#include "common/mbarrier.cuh"

struct alignas(64) TensorMap {
    uint64_t opaque[16];
};
static_assert(sizeof(TensorMap) == 128, "src/device/gpu/tensor_map.rs mirrors this");

// Has the map fetched ahead of its first use.
__device__ __forceinline__ void prefetch_map(const TensorMap& map) {
#ifndef TASR_EMULATOR
    asm volatile("prefetch.tensormap [%0];" : : "l"(&map) : "memory");
#endif
}

// Copies the box that starts at `first`, the innermost coordinate first; coordinates may lie outside. The
// bytes of the whole box are counted by `barrier`, and may be read by who has waited for its phase.
template <int RANK>
__device__ __forceinline__ void copy_box(void* shared, const TensorMap& map, Mbarrier& barrier,
                                         const int (&first)[RANK], TASR_SITE) {
    static_assert(RANK == 2 || RANK == 4 || RANK == 5, "other ranks have no caller");
#ifdef TASR_EMULATOR
    emulator::copy_box(shared, &map, &barrier, first, RANK, site);
#else
    if constexpr (RANK == 2)
        asm volatile(
            "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], "
            "[%2];"
            :
            : "r"(shared_address(shared)), "l"(&map), "r"(shared_address(&barrier)), "r"(first[0]), "r"(first[1])
            : "memory");
    else if constexpr (RANK == 4)
        asm volatile(
            "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], "
            "[%1, {%3, %4, %5, %6}], [%2];"
            :
            : "r"(shared_address(shared)), "l"(&map), "r"(shared_address(&barrier)), "r"(first[0]), "r"(first[1]),
              "r"(first[2]), "r"(first[3])
            : "memory");
    else
        asm volatile(
            "cp.async.bulk.tensor.5d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], "
            "[%1, {%3, %4, %5, %6, %7}], [%2];"
            :
            : "r"(shared_address(shared)), "l"(&map), "r"(shared_address(&barrier)), "r"(first[0]), "r"(first[1]),
              "r"(first[2]), "r"(first[3]), "r"(first[4])
            : "memory");
#endif
}
