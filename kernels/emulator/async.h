// What works beside the warps of sm_90: mbarriers that count copied bytes, TMA, wgmma.
#pragma once

#include <cstring>

#include "context.h"

namespace emulator {

constexpr unsigned WARPGROUP = 128;
constexpr unsigned MAX_WARPGROUPS = MAX_THREADS / WARPGROUP;

/// Actors behind the warps: the copies of one mbarrier are one, its time the phase; the products of one warp
/// are one, its time the group.
constexpr unsigned FIRST_COPIER = MAX_WARPS, FIRST_READER = FIRST_COPIER + 16;

/// Mirrored by EncodedMap in src/device/gpu/emulator.rs.
struct alignas(64) EncodedMap {
    uint64_t mark;
    uint64_t base;
    uint64_t stride[4];
    uint32_t dims[5];
    uint32_t box[5];
    uint32_t rank;
    uint32_t element_bytes;
    /// bytes of a swizzled row: 128, 64, 32, or 0
    uint32_t swizzle;
    uint32_t unused[7];
};
static_assert(sizeof(EncodedMap) == 128, "src/device/gpu/emulator.rs mirrors this");
constexpr uint64_t ENCODED_MARK = 0x70616d5f726e7374;

/// A box on its way.
struct BoxCopy {
    const EncodedMap* map;
    uintptr_t to;
    int first[5];
};

struct Mbarrier {
    uintptr_t address;
    unsigned arrivals, left;
    uint64_t expected, coming;
    unsigned phase;
    bool fenced;
    /// who initialised it, and when
    unsigned thread, time;
    /// of its copies, once there are any
    unsigned actor;
    Site site;
    std::vector<BoxCopy> copies;
    std::vector<Fiber*> waiting;
    /// times of what happened before the current phase is complete, and before the last one was
    unsigned gathered[MAX_ACTORS], known[MAX_ACTORS];
};

/// Sums that products are on their way to.
struct Product {
    unsigned group, count;
    float* to[WARPGROUP];
    std::vector<float> sums;
};

struct Warpgroup {
    unsigned arrived;
    const char* name;
    Site site;
    void* arguments[WARPGROUP];
    unsigned committed;
    bool fenced;
    std::vector<Product> products;
};

struct Async {
    std::vector<Mbarrier> mbarriers;
    unsigned copiers;
    Warpgroup groups[MAX_WARPGROUPS];
};

/// Where a byte of a swizzled tile lies, as an offset in shared memory.
inline uintptr_t swizzled(uintptr_t offset, unsigned row_bytes) {
    return row_bytes ? offset ^ ((offset >> 7 & (row_bytes / 16 - 1)) << 4) : offset;
}

}  // namespace emulator
