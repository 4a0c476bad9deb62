// A virtual concatenation along the channels, read in place. Mirrored by SegmentsParams in src/ops/gpu.rs.
#pragma once

#include "common/vector.cuh"

constexpr int MAX_SEGMENTS = 8;

struct Segments {
    const void* tensor[MAX_SEGMENTS];  // [pixels, channels of the part]
    const void* plus[MAX_SEGMENTS];    // added to it, or absent
    unsigned end[MAX_SEGMENTS];        // channels of this part and those before it
    unsigned parts;
    unsigned channels;  // of all parts
    // channels of every part are a multiple of 8, addresses of 16
    unsigned aligned;
    unsigned pad;
};
static_assert(sizeof(Segments) == 176, "src/ops/gpu.rs mirrors this");

// The part that holds `channel`, and its first channel.
__device__ __forceinline__ int find_segment(const Segments& s, unsigned channel, unsigned& start) {
    int part = 0;
    start = 0;
#pragma unroll
    for (int i = 0; i < MAX_SEGMENTS - 1; i++)
        if (i + 1 < s.parts && channel >= s.end[i]) {
            part = i + 1;
            start = s.end[i];
        }
    return part;
}

// One element of `pixel`.
template <typename T>
__device__ __forceinline__ float segment_element(const Segments& s, uint64_t pixel, unsigned channel) {
    unsigned start;
    int part = find_segment(s, channel, start);
    uint64_t at = pixel * (s.end[part] - start) + (channel - start);
    float value = to_f32(static_cast<const T*>(s.tensor[part])[at]);
    if (s.plus[part]) value += to_f32(static_cast<const T*>(s.plus[part])[at]);
    return value;
}

// Channels `channel` to `channel + 7` of `pixel`, channel a multiple of 8; those beyond the last are zeros.
template <typename T>
__device__ __forceinline__ void segment_8(const Segments& s, uint64_t pixel, unsigned channel, float (&values)[8]) {
    if (s.aligned && channel < s.channels) {
        unsigned start;
        int part = find_segment(s, channel, start);
        uint64_t at = pixel * (s.end[part] - start) + (channel - start);
        load_8(static_cast<const T*>(s.tensor[part]) + at, values);
        if (s.plus[part]) {
            float plus[8];
            load_8(static_cast<const T*>(s.plus[part]) + at, plus);
#pragma unroll
            for (int i = 0; i < 8; i++) values[i] += plus[i];
        }
        return;
    }
#pragma unroll
    for (int i = 0; i < 8; i++)
        values[i] = channel + i < s.channels ? segment_element<T>(s, pixel, channel + i) : 0.0f;
}

// --- eight channels of many pixels ---------------------------------------------------------------------------

// How eight channels are read: from one tensor, as the sum of two, or element by element from wherever they lie.
enum SegmentKind : int { ONE_TENSOR, SUM_OF_TWO, ELEMENTS };

// Where eight channels start.
template <typename T>
struct SegmentColumn {
    const T* tensor;  // in the first pixel
    const T* plus;
    unsigned pitch;    // channels of the part
    unsigned channel;  // of the concatenation
};

template <typename T>
__device__ __forceinline__ SegmentColumn<T> segment_column(const Segments& s, unsigned channel) {
    unsigned start;
    int part = find_segment(s, channel, start);
    const T *tensor = static_cast<const T*>(s.tensor[part]), *plus = static_cast<const T*>(s.plus[part]);
    return {tensor + (channel - start), plus ? plus + (channel - start) : nullptr, s.end[part] - start, channel};
}

// One pixel's on their way: several can be before the first is used.
template <typename T, SegmentKind KIND>
struct SegmentLine {
    Packed8<T> tensor, plus;
    float element[8];

    __device__ __forceinline__ void load(const Segments& s, const SegmentColumn<T>& column, uint64_t pixel) {
        if constexpr (KIND == ELEMENTS) {
#pragma unroll
            for (unsigned i = 0; i < 8; i++)
                element[i] =
                    column.channel + i < s.channels ? segment_element<T>(s, pixel, column.channel + i) : 0.0f;
        } else {
            tensor = load_packed(column.tensor + pixel * column.pitch);
            if constexpr (KIND == SUM_OF_TWO) plus = load_packed(column.plus + pixel * column.pitch);
        }
    }

    __device__ __forceinline__ void get(float (&values)[8]) const {
        if constexpr (KIND == ELEMENTS) {
#pragma unroll
            for (int i = 0; i < 8; i++) values[i] = element[i];
        } else {
            unpack(tensor, values);
            if constexpr (KIND == SUM_OF_TWO) {
                float more[8];
                unpack(plus, more);
#pragma unroll
                for (int i = 0; i < 8; i++) values[i] += more[i];
            }
        }
    }
};
