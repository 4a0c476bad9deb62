// Resizing along one axis by a table of taps.
#include "common/kernel.cuh"

// in [outer, from, inner] f32 => [outer, to, inner]; output position i of the axis is the sum over taps of
// weights[i, tap] * in[first[i] + tap]; 256 threads, one element each. Neighbours share their taps in cache.
struct ResizeParams {
    float* out;
    const float* in;
    const unsigned* first;  // [to]
    const float* weights;   // [to, taps], zeros behind the last
    unsigned count;
    unsigned from, to, inner;
    unsigned taps;
    unsigned pad;
};
static_assert(sizeof(ResizeParams) == 56, "src/ops/resize/cuda.rs mirrors this");

__device__ __forceinline__ void resize_along(const ResizeParams& p) {
    unsigned i = blockIdx.x * blockDim.x + thread();
    if (i >= p.count) return;
    unsigned within = i % p.inner, line = i / p.inner, place = line % p.to, outer = line / p.to;
    unsigned first = p.first[place], left = p.from - first, taps = left < p.taps ? left : p.taps;
    const float* in = p.in + (uint64_t(outer) * p.from + first) * p.inner + within;
    const float* weights = p.weights + uint64_t(place) * p.taps;
    float sum = 0.0f;
    for (unsigned tap = 0; tap < taps; tap++) sum += weights[tap] * in[uint64_t(tap) * p.inner];
    p.out[i] = sum;
}
KERNEL(resize_axis, ResizeParams, 256, resize_along)
