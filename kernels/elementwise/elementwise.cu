// Pointwise arithmetic that no other family fuses. Each thread makes eight consecutive elements.
#include "common/kernel.cuh"
#include "common/math.cuh"
#include "common/segments.cuh"
#include "common/vector.cuh"

// --- combine: out[i] = constant + sum of factor[t] * in[t][i] --------------------------------------------
// [count] x terms => [count]; 256 threads; moves (terms + 1) * count elements

constexpr int MAX_TERMS = 8;

struct CombineParams {
    void* out;
    const void* in[MAX_TERMS];
    float factor[MAX_TERMS];
    uint64_t count;
    float constant;
    unsigned terms;
    // every address is a multiple of 16
    unsigned aligned;
    unsigned pad;
};
static_assert(sizeof(CombineParams) == 128, "src/ops/elementwise/cuda.rs mirrors this");

// How many elements of a thread's eight exist; 0 when it has nothing to do.
__device__ __forceinline__ int own_elements(uint64_t count, uint64_t& first) {
    first = (uint64_t(blockIdx.x) * blockDim.x + thread()) * 8;
    return first >= count ? 0 : count - first >= 8 ? 8 : int(count - first);
}

template <typename T>
__device__ __forceinline__ void load_own(const void* from, uint64_t first, int own, bool aligned, float (&v)[8]) {
    const T* at = static_cast<const T*>(from) + first;
    if (aligned && own == 8)
        load_8(at, v);
    else
        load_some(at, v, own);
}

template <typename T>
__device__ __forceinline__ void store_own(void* to, uint64_t first, int own, bool aligned, const float (&v)[8]) {
    T* at = static_cast<T*>(to) + first;
    if (aligned && own == 8)
        store_8(at, v);
    else
        store_some(at, v, own);
}

template <typename T>
__device__ void combine(const CombineParams& p) {
    uint64_t first;
    int own = own_elements(p.count, first);
    if (own == 0) return;
    float sum[8];
#pragma unroll
    for (int i = 0; i < 8; i++) sum[i] = p.constant;
#pragma unroll
    for (int term = 0; term < MAX_TERMS; term++) {
        if (term >= p.terms) break;
        float x[8];
        load_own<T>(p.in[term], first, own, p.aligned, x);
#pragma unroll
        for (int i = 0; i < 8; i++) sum[i] += p.factor[term] * x[i];
    }
    store_own<T>(p.out, first, own, p.aligned, sum);
}
KERNEL_ALL(combine, CombineParams, 256, combine)

// --- pointwise: out[i] = activation(in[i]), and casts ----------------------------------------------------
// [count] => [count]; 256 threads; moves 2 * count elements

struct PointwiseParams {
    void* out;
    const void* in;
    uint64_t count;
    unsigned activation;
    float slope;
    unsigned aligned;
    unsigned pad;
};
static_assert(sizeof(PointwiseParams) == 40, "src/ops/elementwise/cuda.rs mirrors this");

template <typename From, typename To>
__device__ __forceinline__ void map(const PointwiseParams& p) {
    uint64_t first;
    int own = own_elements(p.count, first);
    if (own == 0) return;
    float x[8];
    load_own<From>(p.in, first, own, p.aligned, x);
#pragma unroll
    for (int i = 0; i < 8; i++) x[i] = activate(x[i], p.activation, p.slope);
    store_own<To>(p.out, first, own, p.aligned, x);
}

template <typename T>
__device__ void pointwise(const PointwiseParams& p) {
    map<T, T>(p);
}
KERNEL_ALL(pointwise, PointwiseParams, 256, pointwise)

template <typename T>
__device__ void cast_to_f32(const PointwiseParams& p) {
    map<T, float>(p);
}
KERNEL_HALF(cast_to_f32, PointwiseParams, 256, cast_to_f32)

template <typename T>
__device__ void cast_to_f16(const PointwiseParams& p) {
    map<T, f16>(p);
}
KERNEL_ALL(cast_to_f16, PointwiseParams, 256, cast_to_f16)

template <typename T>
__device__ void cast_to_bf16(const PointwiseParams& p) {
    map<T, bf16>(p);
}
KERNEL_ALL(cast_to_bf16, PointwiseParams, 256, cast_to_bf16)

// --- concat: writes a virtual concatenation out --------------------------------------------------------
// parts [pixels, c] => [pixels, channels]; 256 threads; moves 2 to 3 * count elements

struct ConcatParams {
    void* out;
    uint64_t count;
    Segments segments;
};
static_assert(sizeof(ConcatParams) == 192, "src/ops/elementwise/cuda.rs mirrors this");

template <typename T>
__device__ void concat(const ConcatParams& p) {
    uint64_t first;
    int own = own_elements(p.count, first);
    if (own == 0) return;
    unsigned channels = p.segments.channels;
    float x[8];
    if (p.segments.aligned) {
        // Eight elements never straddle two pixels: the channels are a multiple of 8.
        segment_8<T>(p.segments, first / channels, unsigned(first % channels), x);
    } else {
#pragma unroll
        for (int i = 0; i < 8; i++) {
            uint64_t at = first + i;
            x[i] = i < own ? segment_element<T>(p.segments, at / channels, unsigned(at % channels)) : 0.0f;
        }
    }
    store_own<T>(p.out, first, own, p.segments.aligned, x);
}
KERNEL_ALL(concat, ConcatParams, 256, concat)
