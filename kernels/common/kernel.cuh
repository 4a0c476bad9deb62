// What every kernel file includes: element types, and the macros that give a kernel its name.
//
// A kernel takes one struct by value. The macros below are also read by the build script, which lists the
// kernels for the host, so they stand at the start of a line with the name first.
#pragma once

#ifdef TASR_EMULATOR
#include "emulator/arithmetic.h"
#else
#ifndef __CUDACC_RTC__
#include <cstdint>
#else
using uint8_t = unsigned char;
using uint16_t = unsigned short;
using int32_t = int;
using uint32_t = unsigned;
using int64_t = long long;
using uint64_t = unsigned long long;
#endif
#define TASR_SITE int = 0
#endif

#include "common/dtype.cuh"

// KERNEL(name, Params, threads, function): one kernel of at most `threads` threads a block.
#ifdef TASR_EMULATOR
#define KERNEL(NAME, PARAMS, THREADS, ...)                                                        \
    static void run_##NAME(const void* p) { __VA_ARGS__(*static_cast<const PARAMS*>(p)); }        \
    extern const emulator::Kernel entry_##NAME = {#NAME, run_##NAME, sizeof(PARAMS), THREADS};
#define KERNEL_RESIDENT_(NAME, PARAMS, THREADS, BLOCKS, ...) KERNEL(NAME, PARAMS, THREADS, __VA_ARGS__)
#else
#define KERNEL(NAME, PARAMS, THREADS, ...)                                                        \
    extern "C" __global__ void __launch_bounds__(THREADS) NAME(const __grid_constant__ PARAMS p) { \
        __VA_ARGS__(p);                                                                           \
    }
#define KERNEL_RESIDENT_(NAME, PARAMS, THREADS, BLOCKS, ...)                                               \
    extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) NAME(const __grid_constant__ PARAMS p) { \
        __VA_ARGS__(p);                                                                                    \
    }
#endif

// KERNEL_HALF(name, Params, threads, function): function<f16> as name_f16 and function<bf16> as name_bf16.
#define KERNEL_HALF(NAME, PARAMS, THREADS, FUNCTION)   \
    KERNEL(NAME##_f16, PARAMS, THREADS, FUNCTION<f16>) \
    KERNEL(NAME##_bf16, PARAMS, THREADS, FUNCTION<bf16>)

// KERNEL_HALF_RESIDENT(name, Params, threads, blocks, function): the same with registers for so many blocks a
// multiprocessor, where the compiler would spill some for one more.
#define KERNEL_HALF_RESIDENT(NAME, PARAMS, THREADS, BLOCKS, FUNCTION)    \
    KERNEL_RESIDENT_(NAME##_f16, PARAMS, THREADS, BLOCKS, FUNCTION<f16>) \
    KERNEL_RESIDENT_(NAME##_bf16, PARAMS, THREADS, BLOCKS, FUNCTION<bf16>)

// KERNEL_ALL: the same and function<float> as name_f32.
#define KERNEL_ALL(NAME, PARAMS, THREADS, FUNCTION)      \
    KERNEL(NAME##_f32, PARAMS, THREADS, FUNCTION<float>) \
    KERNEL_HALF(NAME, PARAMS, THREADS, FUNCTION)

// The block's shared memory as a T. All shared memory is dynamic: its layout is one struct, whose size the
// host's plan knows and gives to the launch.
template <typename T>
__device__ __forceinline__ T& shared_as() {
#ifdef TASR_EMULATOR
    return *static_cast<T*>(emulator::shared_memory());
#else
    extern __shared__ __align__(1024) unsigned char shared_bytes[];
    return *reinterpret_cast<T*>(shared_bytes);
#endif
}

// Linear thread index in a one-dimensional block, and its parts.
__device__ __forceinline__ unsigned thread() { return threadIdx.x; }
__device__ __forceinline__ unsigned lane_index() { return threadIdx.x % 32; }
__device__ __forceinline__ unsigned warp_index() { return threadIdx.x / 32; }

// A barrier of `count` threads, whole warps, that give the same `id` from 1 to 15.
__device__ __forceinline__ void sync_threads(unsigned id, unsigned count, TASR_SITE) {
#ifdef TASR_EMULATOR
    emulator::barrier(id, count, site);
#else
    asm volatile("bar.sync %0, %1;" : : "r"(id), "r"(count) : "memory");
#endif
}

template <typename T>
__device__ __forceinline__ constexpr T divide_up(T a, T b) {
    return (a + b - 1) / b;
}
