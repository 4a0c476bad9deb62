// wgmma for sm_90a: the product of two tiles in shared memory by four warps, m64nNk16 with f32 sums. It runs
// beside what the warps do next: between issue and wait_products neither sums nor tiles may be touched.
//
// Sums, thread t of the warpgroup, register i: row 16 (t / 32) + t % 32 / 4 + 8 (i / 2 % 2), column
// 8 (i / 4) + 2 (t % 4) + i % 2.
#pragma once

#include "common/kernel.cuh"

// A tile of rows of ROW_BYTES with the swizzle of that many bytes, as the hardware reads it: address, bytes
// between groups of eight rows, swizzle. The start moves along k by whole 16-byte chunks within the first row.
template <int ROW_BYTES = 128>
__device__ __forceinline__ uint64_t describe_tile(const void* tile) {
    static_assert(ROW_BYTES == 128 || ROW_BYTES == 64, "rows of the swizzles that TMA writes here");
#ifdef TASR_EMULATOR
    uint64_t address = emulator::shared_offset(tile);
#else
    uint64_t address = unsigned(__cvta_generic_to_shared(tile));
#endif
    constexpr uint64_t GROUP_BYTES = 8 * ROW_BYTES, SWIZZLE = ROW_BYTES == 128 ? 1 : 2;
    return (address & 0x3ffff) >> 4 | 1ull << 16 | (GROUP_BYTES >> 4) << 32 | SWIZZLE << 62;
}

// The described tile from column 16 `step` on.
__device__ __forceinline__ uint64_t advance_tile(uint64_t tile, int step) { return tile + step * 2; }

// The described tile from row 16 `step` on.
__device__ __forceinline__ uint64_t advance_rows(uint64_t tile, int step) { return tile + step * 128; }

// Before the first product, and after the sums were touched: what was done is done before the products.
__device__ __forceinline__ void fence_products(TASR_SITE) {
#ifdef TASR_EMULATOR
    emulator::wgmma_fence(site);
#else
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}

// Shows what this thread wrote to shared memory to the products behind the next barrier.
__device__ __forceinline__ void show_to_products() {
#ifdef TASR_EMULATOR
    emulator::fence_async();
#else
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

// Ends a group of products.
__device__ __forceinline__ void commit_products(TASR_SITE) {
#ifdef TASR_EMULATOR
    emulator::wgmma_commit(site);
#else
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
}

// Waits until at most `GROUPS` of the latest groups are on their way.
template <int GROUPS>
__device__ __forceinline__ void wait_products(TASR_SITE) {
#ifdef TASR_EMULATOR
    emulator::wgmma_wait(GROUPS, site);
#else
    asm volatile("wgmma.wait_group.sync.aligned %0;" : : "n"(GROUPS) : "memory");
#endif
}

// Keeps the compiler from moving what touches the sums across this place.
template <int COUNT>
__device__ __forceinline__ void pin(float (&sum)[COUNT]) {
#ifndef TASR_EMULATOR
#pragma unroll
    for (int i = 0; i < COUNT; i++) asm volatile("" : "+f"(sum[i]) : : "memory");
#endif
}

#ifndef TASR_EMULATOR
#define TASR_SUMS_16(I)                                                                                  \
    "+f"(sum[I]), "+f"(sum[I + 1]), "+f"(sum[I + 2]), "+f"(sum[I + 3]), "+f"(sum[I + 4]),                \
        "+f"(sum[I + 5]), "+f"(sum[I + 6]), "+f"(sum[I + 7]), "+f"(sum[I + 8]), "+f"(sum[I + 9]),        \
        "+f"(sum[I + 10]), "+f"(sum[I + 11]), "+f"(sum[I + 12]), "+f"(sum[I + 13]), "+f"(sum[I + 14]),   \
        "+f"(sum[I + 15])
#define TASR_SUMS_32 TASR_SUMS_16(0), TASR_SUMS_16(16)
#define TASR_SUMS_64 TASR_SUMS_32, TASR_SUMS_16(32), TASR_SUMS_16(48)
#define TASR_SUMS_80 TASR_SUMS_64, TASR_SUMS_16(64)
#define TASR_SUMS_128 TASR_SUMS_80, TASR_SUMS_16(80), TASR_SUMS_16(96), TASR_SUMS_16(112)
#define TASR_REGISTERS_32 \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define TASR_REGISTERS_64 TASR_REGISTERS_32 ", " \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define TASR_REGISTERS_80 TASR_REGISTERS_64 ", " \
    "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79"
#define TASR_REGISTERS_128 TASR_REGISTERS_80 ", " \
    "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, " \
    "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, " \
    "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
// COUNT sums; operands A, B and KEEP follow them in number.
#define TASR_WGMMA(TYPE, N, COUNT, A, B, KEEP)                                                           \
    asm volatile("{\n.reg .pred keep;\nsetp.ne.b32 keep, %" KEEP ", 0;\n"                                \
                 "wgmma.mma_async.sync.aligned.m64n" N "k16.f32." TYPE "." TYPE                          \
                 " {" TASR_REGISTERS_##COUNT "}, %" A ", %" B ", keep, 1, 1, 0, 0;\n}"                    \
                 : TASR_SUMS_##COUNT                                                                     \
                 : "l"(a), "l"(b), "r"(int(keep)))
#endif

// sum += a . b^T, or = where `keep` is false, with a [64, 16] and b [2 COUNT, 16] of described tiles.
template <typename T, int COUNT>
__device__ __forceinline__ void multiply(float (&sum)[COUNT], uint64_t a, uint64_t b, bool keep, TASR_SITE) {
    static_assert(COUNT == 64 || COUNT == 80 || COUNT == 128, "other widths have no caller");
#ifdef TASR_EMULATOR
    emulator::wgmma(sum, COUNT, a, b, keep, is_bf16<T>, site);
#else
    if constexpr (is_bf16<T>) {
        if constexpr (COUNT == 64) TASR_WGMMA("bf16", "128", 64, "64", "65", "66");
        if constexpr (COUNT == 80) TASR_WGMMA("bf16", "160", 80, "80", "81", "82");
        if constexpr (COUNT == 128) TASR_WGMMA("bf16", "256", 128, "128", "129", "130");
    } else {
        if constexpr (COUNT == 64) TASR_WGMMA("f16", "128", 64, "64", "65", "66");
        if constexpr (COUNT == 80) TASR_WGMMA("f16", "160", 80, "80", "81", "82");
        if constexpr (COUNT == 128) TASR_WGMMA("f16", "256", 128, "128", "129", "130");
    }
#endif
}

// sum += a . b, or = where `keep` is false: a [64, 16] in registers, of which each warp has 16 rows as mma.cuh has
// them, and b [16, 64] the first rows of a described tile. Until wait_products a must not be touched either.
template <typename T>
__device__ __forceinline__ void multiply_rows(float (&sum)[32], const unsigned (&a)[4], uint64_t b, bool keep,
                                              TASR_SITE) {
#ifdef TASR_EMULATOR
    emulator::wgmma_rows(sum, a, b, keep, is_bf16<T>, site);
#else
#define TASR_WGMMA_ROWS(TYPE)                                                                            \
    asm volatile("{\n.reg .pred keep;\nsetp.ne.b32 keep, %37, 0;\n"                                     \
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32." TYPE "." TYPE                             \
                 " {" TASR_REGISTERS_32 "}, {%32, %33, %34, %35}, %36, keep, 1, 1, 1;\n}"                \
                 : TASR_SUMS_32                                                                          \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(int(keep)))
    if constexpr (is_bf16<T>)
        TASR_WGMMA_ROWS("bf16");
    else
        TASR_WGMMA_ROWS("f16");
#endif
}

// Gives registers of this warpgroup back, or takes what others gave back.
template <int REGISTERS>
__device__ __forceinline__ void shrink_registers() {
#ifndef TASR_EMULATOR
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" : : "n"(REGISTERS));
#endif
}
template <int REGISTERS>
__device__ __forceinline__ void grow_registers() {
#ifndef TASR_EMULATOR
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" : : "n"(REGISTERS));
#endif
}
