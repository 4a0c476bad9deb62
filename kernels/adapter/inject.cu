// The gate's injection apart from its convolution, and its gradient, for training. A warp takes a pixel.
#include "common/kernel.cuh"
#include "common/math.cuh"
#include "common/reduce.cuh"
#include "common/vector.cuh"

struct InjectParams {
    void* out;             // [pixels, d]
    float* pixel;          // [pixels]: the map, or the gradient of the logits
    const void* value;     // [pixels]: logits; for the gradient the map, f32
    const void* base;      // [pixels, d]: base; for the gradient that of the result
    const void* residual;  // [pixels, d]
    unsigned pixels;
    unsigned d;
    // the map is top * sigmoid
    float top;
    // rows are multiples of 16 bytes
    unsigned aligned;
};
static_assert(sizeof(InjectParams) == 56, "src/ops/adapter_gate/cuda.rs mirrors this");

constexpr unsigned INJECT_THREADS = 256;

// Calls each(channel, own, whole) for eight channels at a time of the warp's pixel.
template <typename Each>
__device__ __forceinline__ void chunks_of_pixel(const InjectParams& p, Each each) {
    for (unsigned channel = lane_index() * 8; channel < p.d; channel += 32 * 8) {
        int own = p.d - channel < 8 ? int(p.d - channel) : 8;
        each(channel, own, p.aligned && own == 8);
    }
}

template <typename T>
__device__ __forceinline__ void load_chunk(const void* from, uint64_t at, int own, bool whole, float (&v)[8]) {
    const T* address = static_cast<const T*>(from) + at;
    whole ? load_8(address, v) : load_some(address, v, own);
}

template <typename T>
__device__ __forceinline__ void store_result(void* to, uint64_t at, int own, bool whole, const float (&v)[8]) {
    T* address = static_cast<T*>(to) + at;
    whole ? store_8(address, v) : store_some(address, v, own);
}

// map = top * sigmoid(logit); out = base + map * residual. Moves 3 * pixels * d elements.
template <typename T>
__device__ void gate_inject(const InjectParams& p) {
    unsigned pixel = blockIdx.x * (INJECT_THREADS / 32) + warp_index();
    if (pixel >= p.pixels) return;
    float map = p.top * sigmoid(to_f32(static_cast<const T*>(p.value)[pixel]));
    if (lane_index() == 0) p.pixel[pixel] = map;
    chunks_of_pixel(p, [&](unsigned channel, int own, bool whole) {
        uint64_t at = uint64_t(pixel) * p.d + channel;
        float base[8], residual[8];
        load_chunk<T>(p.base, at, own, whole, base);
        load_chunk<T>(p.residual, at, own, whole, residual);
#pragma unroll
        for (int i = 0; i < 8; i++) base[i] += map * residual[i];
        store_result<T>(p.out, at, own, whole, base);
    });
}
KERNEL_ALL(gate_inject, InjectParams, 256, gate_inject)

// From the gradient g of the result: out = map * g, and of the logit (sum of g * residual) * map * (1 - map / top).
// Moves 3 * pixels * d elements.
template <typename T>
__device__ void gate_inject_gradient(const InjectParams& p) {
    unsigned pixel = blockIdx.x * (INJECT_THREADS / 32) + warp_index();
    if (pixel >= p.pixels) return;
    float map = static_cast<const float*>(p.value)[pixel], sum = 0.0f;
    chunks_of_pixel(p, [&](unsigned channel, int own, bool whole) {
        uint64_t at = uint64_t(pixel) * p.d + channel;
        float gradient[8], residual[8];
        load_chunk<T>(p.base, at, own, whole, gradient);
        load_chunk<T>(p.residual, at, own, whole, residual);
#pragma unroll
        for (int i = 0; i < 8; i++) sum += gradient[i] * residual[i], gradient[i] *= map;
        store_result<T>(p.out, at, own, whole, gradient);
    });
    sum = warp_sum(sum);
    if (lane_index() == 0) p.pixel[pixel] = sum * map * (1.0f - map / p.top);
}
KERNEL_ALL(gate_inject_gradient, InjectParams, 256, gate_inject_gradient)
