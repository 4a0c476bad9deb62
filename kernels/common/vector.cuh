// 128-bit loads and stores of eight elements as f32.
#pragma once

#include "common/kernel.cuh"

// One 16-byte access; the address is a multiple of 16.
__device__ __forceinline__ uint4 load_16_bytes(const void* address, TASR_SITE) {
#ifdef TASR_EMULATOR
    emulator::check(address, 16, emulator::Access::Read, 16, site);
    uint4 value;
    memcpy(&value, address, 16);
    return value;
#else
    return *static_cast<const uint4*>(address);
#endif
}

__device__ __forceinline__ void store_16_bytes(void* address, uint4 value, TASR_SITE) {
#ifdef TASR_EMULATOR
    emulator::check(address, 16, emulator::Access::Write, 16, site);
    memcpy(address, &value, 16);
#else
    *static_cast<uint4*>(address) = value;
#endif
}

// Eight elements as they lie in memory: several loads can be on their way before the first is used.
template <typename T>
struct Packed8 {
    uint4 part[sizeof(T) / 2];
};

// From an address that is a multiple of 16 bytes.
template <typename T>
__device__ __forceinline__ Packed8<T> load_packed(const T* from) {
    Packed8<T> packed;
#pragma unroll
    for (int i = 0; i < int(sizeof(T) / 2); i++) packed.part[i] = load_16_bytes(from + i * 16 / sizeof(T));
    return packed;
}

template <typename T>
__device__ __forceinline__ void unpack(const Packed8<T>& packed, float (&values)[8]) {
    if constexpr (sizeof(T) == 4) {
        uint4 low = packed.part[0], high = packed.part[1];
        values[0] = __uint_as_float(low.x), values[1] = __uint_as_float(low.y);
        values[2] = __uint_as_float(low.z), values[3] = __uint_as_float(low.w);
        values[4] = __uint_as_float(high.x), values[5] = __uint_as_float(high.y);
        values[6] = __uint_as_float(high.z), values[7] = __uint_as_float(high.w);
    } else {
        uint4 raw = packed.part[0];
        float2 a = unpack_pair<T>(raw.x), b = unpack_pair<T>(raw.y);
        float2 c = unpack_pair<T>(raw.z), d = unpack_pair<T>(raw.w);
        values[0] = a.x, values[1] = a.y, values[2] = b.x, values[3] = b.y;
        values[4] = c.x, values[5] = c.y, values[6] = d.x, values[7] = d.y;
    }
}

// Eight consecutive elements from an address that is a multiple of 16 bytes.
template <typename T>
__device__ __forceinline__ void load_8(const T* from, float (&values)[8]) {
    unpack(load_packed(from), values);
}

template <typename T>
__device__ __forceinline__ void store_8(T* to, const float (&values)[8]) {
    if constexpr (sizeof(T) == 4) {
        store_16_bytes(to, make_uint4(__float_as_uint(values[0]), __float_as_uint(values[1]),
                                      __float_as_uint(values[2]), __float_as_uint(values[3])));
        store_16_bytes(to + 4, make_uint4(__float_as_uint(values[4]), __float_as_uint(values[5]),
                                          __float_as_uint(values[6]), __float_as_uint(values[7])));
    } else {
        store_16_bytes(to, make_uint4(pack_pair<T>(values[0], values[1]), pack_pair<T>(values[2], values[3]),
                                      pack_pair<T>(values[4], values[5]), pack_pair<T>(values[6], values[7])));
    }
}

// The same for any address and fewer elements: those from `count` on are zeros, or not stored.
template <typename T>
__device__ __forceinline__ void load_some(const T* from, float (&values)[8], int count) {
#pragma unroll
    for (int i = 0; i < 8; i++) values[i] = i < count ? to_f32(from[i]) : 0.0f;
}

template <typename T>
__device__ __forceinline__ void store_some(T* to, const float (&values)[8], int count) {
#pragma unroll
    for (int i = 0; i < 8; i++)
        if (i < count) to[i] = from_f32<T>(values[i]);
}

// Eight elements in one access where `whole` says that the address allows it, else those that there are.
template <typename T>
__device__ __forceinline__ void load_up_to_8(const T* from, float (&values)[8], int count, bool whole) {
    if (whole && count == 8)
        load_8(from, values);
    else
        load_some(from, values, count);
}

template <typename T>
__device__ __forceinline__ void store_up_to_8(T* to, const float (&values)[8], int count, bool whole) {
    if (whole && count == 8)
        store_8(to, values);
    else
        store_some(to, values, count);
}
