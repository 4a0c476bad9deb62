// Element types: float, f16, bf16. Halves are storage only; arithmetic is in f32.
#pragma once

struct f16 {
    unsigned short bits;
};
struct bf16 {
    unsigned short bits;
};

template <typename T>
constexpr bool is_bf16 = false;
template <>
constexpr bool is_bf16<bf16> = true;

__device__ __forceinline__ float to_f32(float x) { return x; }

__device__ __forceinline__ float to_f32(f16 x) {
#ifdef TASR_EMULATOR
    return emulator::f16_to_f32(x.bits);
#else
    float wide;
    asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(x.bits));
    return wide;
#endif
}

__device__ __forceinline__ float to_f32(bf16 x) { return __uint_as_float(unsigned(x.bits) << 16); }

// Rounds to nearest, ties to even.
template <typename T>
__device__ __forceinline__ T from_f32(float x);

template <>
__device__ __forceinline__ float from_f32<float>(float x) {
    return x;
}

template <>
__device__ __forceinline__ f16 from_f32<f16>(float x) {
#ifdef TASR_EMULATOR
    return {emulator::f32_to_f16(x)};
#else
    f16 narrow;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(narrow.bits) : "f"(x));
    return narrow;
#endif
}

template <>
__device__ __forceinline__ bf16 from_f32<bf16>(float x) {
#ifdef TASR_EMULATOR
    unsigned bits = __float_as_uint(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return {0x7fff};
    bits += 0x7fff + (bits >> 16 & 1);
    return {static_cast<unsigned short>(bits >> 16)};
#else
    bf16 narrow;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(narrow.bits) : "f"(x));
    return narrow;
#endif
}

// Two values in one register, `low` at the lower address.
template <typename T>
__device__ __forceinline__ unsigned pack_pair(float low, float high);

template <>
__device__ __forceinline__ unsigned pack_pair<f16>(float low, float high) {
#ifdef TASR_EMULATOR
    return emulator::f32_to_f16(low) | unsigned(emulator::f32_to_f16(high)) << 16;
#else
    unsigned pair;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
#endif
}

template <>
__device__ __forceinline__ unsigned pack_pair<bf16>(float low, float high) {
#ifdef TASR_EMULATOR
    return from_f32<bf16>(low).bits | unsigned(from_f32<bf16>(high).bits) << 16;
#else
    unsigned pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
#endif
}

template <typename T>
__device__ __forceinline__ float2 unpack_pair(unsigned pair);

template <>
__device__ __forceinline__ float2 unpack_pair<f16>(unsigned pair) {
    return make_float2(to_f32(f16{static_cast<unsigned short>(pair)}),
                       to_f32(f16{static_cast<unsigned short>(pair >> 16)}));
}

template <>
__device__ __forceinline__ float2 unpack_pair<bf16>(unsigned pair) {
    return make_float2(__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u));
}
