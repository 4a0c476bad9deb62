// How a block brings 32 channels of its patch to shared memory: asynchronously when the input is stored as the
// products want it, through registers when it is a sum, wants the prologue or is not aligned.
//
// A patch lies in shared memory as tile.cuh has it: 64 bytes a pixel, chunks of eight channels swizzled. A
// thread always brings the same chunk (thread % 4) of pixels that are a quarter of the block's threads apart.
#pragma once

#include "common/tile.cuh"
#include "conv/problem.cuh"

static_assert(BLOCK_CHANNELS == TILE_K, "a step multiplies one tile");

// Where a thread's chunk of one channel block is stored.
template <typename T>
struct ChunkSource {
    const T* from;  // channels of pixel 0, or absent when they are beyond the last
    const T* plus;
    unsigned width;    // channels of the part
    unsigned channel;  // of the whole input
};

template <typename T>
__device__ __forceinline__ ChunkSource<T> find_chunk(const Segments& s, int block) {
    unsigned channel = block * BLOCK_CHANNELS + thread() % 4 * 8, start;
    if (channel >= s.channels) return {nullptr, nullptr, 0, channel};
    int part = find_segment(s, channel, start);
    const T* from = static_cast<const T*>(s.tensor[part]) + (channel - start);
    const T* plus = s.plus[part] ? static_cast<const T*>(s.plus[part]) + (channel - start) : nullptr;
    return {from, plus, s.end[part] - start, channel};
}

// Starts the copy of a whole patch of plain, aligned parts.
template <typename T, int THREADS>
__device__ __forceinline__ void copy_patch(const ConvParams& p, const int2* table, T* patch, int block) {
    ChunkSource<T> source = find_chunk<T>(p.segments, block);
    for (int pixel = thread() / 4; pixel < p.patch_pixels; pixel += THREADS / 4) {
        int from = table[pixel].x;
        bool inside = from >= 0 && source.from;
        const void* address = inside ? source.from + uint64_t(unsigned(from)) * source.width : p.segments.tensor[0];
        copy_async_16(patch + tile_offset(pixel, thread() % 4), address, inside ? 16 : 0);
    }
}

// A chunk on its way through registers.
struct FusedChunk {
    uint4 own, plus;
};

// Starts the loads of the chunk of the pixel at `place`, when it can be loaded at once.
template <typename T>
__device__ __forceinline__ void fetch_chunk(const ConvParams& p, const ChunkSource<T>& source, int2 place,
                                            FusedChunk& chunk) {
    if (place.x < 0 || !source.from || !p.segments.aligned) return;
    uint64_t at = uint64_t(unsigned(place.x)) * source.width;
    chunk.own = load_16_bytes(source.from + at);
    if (source.plus) chunk.plus = load_16_bytes(source.plus + at);
}

template <typename T>
__device__ __forceinline__ void unpack_halves(uint4 raw, float (&v)[8]) {
    float2 a = unpack_pair<T>(raw.x), b = unpack_pair<T>(raw.y), c = unpack_pair<T>(raw.z), d = unpack_pair<T>(raw.w);
    v[0] = a.x, v[1] = a.y, v[2] = b.x, v[3] = b.y, v[4] = c.x, v[5] = c.y, v[6] = d.x, v[7] = d.y;
}

// Stores a chunk that no single load brings: elements of any part, one at a time, normed.
template <typename T>
__device__ __forceinline__ void gather_chunk(const ConvParams& p, int2 place, unsigned channel, T* to) {
#pragma unroll 1
    for (int i = 0; i < 8; i++, channel++) {
        float x = 0.0f;
        if (place.x >= 0 && channel < p.segments.channels) {
            x = segment_element<T>(p.segments, uint64_t(unsigned(place.x)), channel);
            if (p.coefficients) {
                const float* a = p.coefficients + uint64_t(2 * place.y) * p.segments.channels + channel;
                x = activate(x * a[0] + a[p.segments.channels], p.activation, p.slope);
            }
        }
        to[i] = from_f32<T>(x);
    }
}

// Sums, normalises and stores what fetch_chunk loaded. Zeros outside the image come after the prologue. The
// coefficients are loaded here, to spare registers: the whole block reads the same two lines.
template <typename T>
__device__ __forceinline__ void store_chunk(const ConvParams& p, const ChunkSource<T>& source, int2 place,
                                            const FusedChunk& chunk, T* to) {
    if (!p.segments.aligned) return gather_chunk(p, place, source.channel, to);
    float v[8] = {};
    if (place.x >= 0 && source.from) {
        unpack_halves<T>(chunk.own, v);
        if (source.plus) {
            float plus[8];
            unpack_halves<T>(chunk.plus, plus);
#pragma unroll
            for (int i = 0; i < 8; i++) v[i] += plus[i];
        }
        if (p.coefficients) {
            float a[8], b[8];
            uint64_t row = uint64_t(2 * place.y) * p.segments.channels + source.channel;
            load_8(p.coefficients + row, a);
            load_8(p.coefficients + row + p.segments.channels, b);
#pragma unroll
            for (int i = 0; i < 8; i++) v[i] = v[i] * a[i] + b[i];
            activate_all(v, p.activation, p.slope);
        }
    }
    store_8(to, v);
}
