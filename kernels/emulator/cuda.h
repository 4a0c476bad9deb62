// Stands in for the CUDA built-ins when the host compiler compiles a kernel.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "runtime.h"

#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __restrict__ __restrict
#define __align__(n) alignas(n)

#define threadIdx (emulator::thread_index())
#define blockIdx (emulator::block_index())
#define blockDim (emulator::block_size())
#define gridDim (emulator::grid_size())
#define warpSize 32

/// The caller's place, as a default argument.
#define TASR_SITE emulator::Site site = {__builtin_FILE(), __builtin_LINE()}

struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(8) int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };

inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

// --- synchronisation -----------------------------------------------------------------------------------

inline void __syncthreads(TASR_SITE) { emulator::barrier(0, 0, site); }
inline void __syncwarp(unsigned mask = 0xffffffffu, TASR_SITE) {
    emulator::collective(mask, "__syncwarp", nullptr, nullptr, true, site);
}
inline void __threadfence() {}
inline void __threadfence_block() {}

// --- warp collectives ----------------------------------------------------------------------------------

namespace emulator {

template <typename T>
struct Shuffle {
    T value, result;
    unsigned source;
};

/// `source` is the lane that this lane reads; itself when there is none.
template <typename T>
T shuffle(const char* name, unsigned mask, T value, unsigned source, Site site) {
    Shuffle<T> own{value, value, source};
    collective(
        mask, name,
        [](unsigned mask, void* const* arguments) {
            for (unsigned lane = 0; lane < 32; lane++) {
                if (!(mask >> lane & 1)) continue;
                auto& one = *static_cast<Shuffle<T>*>(arguments[lane]);
                // A lane outside the mask has no value: what it gives is undefined, so it is left alone.
                if (mask >> one.source & 1) one.result = static_cast<Shuffle<T>*>(arguments[one.source])->value;
            }
        },
        &own, false, site);
    return own.result;
}

inline unsigned lane() {
    Index t = thread_index(), b = block_size();
    return (t.x + b.x * (t.y + b.y * t.z)) % 32;
}

template <typename T, typename F>
T reduce(const char* name, unsigned mask, T value, Site site, F) {
    collective(
        mask, name,
        [](unsigned mask, void* const* arguments) {
            bool first = true;
            T total{};
            for (unsigned lane = 0; lane < 32; lane++) {
                if (!(mask >> lane & 1)) continue;
                T one = *static_cast<T*>(arguments[lane]);
                total = first ? one : F()(total, one);
                first = false;
            }
            for (unsigned lane = 0; lane < 32; lane++)
                if (mask >> lane & 1) *static_cast<T*>(arguments[lane]) = total;
        },
        &value, false, site);
    return value;
}

struct Or { unsigned operator()(unsigned a, unsigned b) const { return a | b; } };
struct And { unsigned operator()(unsigned a, unsigned b) const { return a & b; } };
struct Add { unsigned operator()(unsigned a, unsigned b) const { return a + b; } };
struct Max { unsigned operator()(unsigned a, unsigned b) const { return a > b ? a : b; } };
struct Min { unsigned operator()(unsigned a, unsigned b) const { return a < b ? a : b; } };

}  // namespace emulator

template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, TASR_SITE) {
    unsigned lane = emulator::lane(), base = lane & ~(width - 1u);
    return emulator::shuffle("__shfl_sync", mask, value, base | (source & (width - 1)), site);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, TASR_SITE) {
    unsigned lane = emulator::lane(), from = lane ^ bits;
    if ((from & ~(width - 1u)) > (lane & ~(width - 1u))) from = lane;
    return emulator::shuffle("__shfl_xor_sync", mask, value, from, site);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32, TASR_SITE) {
    unsigned lane = emulator::lane(), within = lane & (width - 1u);
    return emulator::shuffle("__shfl_down_sync", mask, value, within + by < unsigned(width) ? lane + by : lane, site);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32, TASR_SITE) {
    unsigned lane = emulator::lane(), within = lane & (width - 1u);
    return emulator::shuffle("__shfl_up_sync", mask, value, within >= by ? lane - by : lane, site);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, TASR_SITE) {
    return emulator::reduce("__ballot_sync", mask, predicate ? 1u << emulator::lane() : 0u, site, emulator::Or());
}
inline int __any_sync(unsigned mask, int predicate, TASR_SITE) {
    return emulator::reduce("__any_sync", mask, unsigned(predicate != 0), site, emulator::Or());
}
inline int __all_sync(unsigned mask, int predicate, TASR_SITE) {
    return emulator::reduce("__all_sync", mask, unsigned(predicate != 0), site, emulator::And());
}
inline unsigned __reduce_add_sync(unsigned mask, unsigned value, TASR_SITE) {
    return emulator::reduce("__reduce_add_sync", mask, value, site, emulator::Add());
}
inline unsigned __reduce_max_sync(unsigned mask, unsigned value, TASR_SITE) {
    return emulator::reduce("__reduce_max_sync", mask, value, site, emulator::Max());
}
inline unsigned __reduce_min_sync(unsigned mask, unsigned value, TASR_SITE) {
    return emulator::reduce("__reduce_min_sync", mask, value, site, emulator::Min());
}

// --- atomics -------------------------------------------------------------------------------------------

namespace emulator {

unsigned atomic_add(unsigned* address, unsigned value);
unsigned atomic_max(unsigned* address, unsigned value);
float atomic_add(float* address, float value);
unsigned atomic_exchange(unsigned* address, unsigned value);
unsigned atomic_compare(unsigned* address, unsigned expected, unsigned value);

}  // namespace emulator

template <typename T>
T atomicAdd(T* address, T value, TASR_SITE) {
    emulator::check(address, sizeof(T), emulator::Access::Atomic, sizeof(T), site);
    return emulator::atomic_add(address, value);
}
inline unsigned atomicMax(unsigned* address, unsigned value, TASR_SITE) {
    emulator::check(address, 4, emulator::Access::Atomic, 4, site);
    return emulator::atomic_max(address, value);
}
inline unsigned atomicExch(unsigned* address, unsigned value, TASR_SITE) {
    emulator::check(address, 4, emulator::Access::Atomic, 4, site);
    return emulator::atomic_exchange(address, value);
}
inline unsigned atomicCAS(unsigned* address, unsigned expected, unsigned value, TASR_SITE) {
    emulator::check(address, 4, emulator::Access::Atomic, 4, site);
    return emulator::atomic_compare(address, expected, value);
}

// --- arithmetic ----------------------------------------------------------------------------------------

inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline unsigned __float_as_uint(float x) {
    unsigned bits;
    memcpy(&bits, &x, 4);
    return bits;
}
inline float __uint_as_float(unsigned bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(unsigned x) { return x ? __builtin_clz(x) : 32; }
inline int __ffs(unsigned x) { return __builtin_ffs(int(x)); }
inline unsigned __umulhi(unsigned a, unsigned b) { return uint64_t(a) * b >> 32; }
template <typename T>
inline T min(T a, T b) { return b < a ? b : a; }
template <typename T>
inline T max(T a, T b) { return a < b ? b : a; }
template <typename T>
inline T __ldg(const T* address) { return *address; }
