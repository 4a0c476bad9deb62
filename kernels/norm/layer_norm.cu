// Layer norm over rows: out = (x - mean) / sqrt(variance + eps) * gamma + beta, by two passes over a row.
#include "common/kernel.cuh"
#include "common/reduce.cuh"
#include "common/vector.cuh"

struct LayerNormParams {
    void* out;
    const void* x;
    const float* gamma;
    const float* beta;
    unsigned rows;
    unsigned channels;
    unsigned lanes;  // of a warp that share a row
    float eps;
};
static_assert(sizeof(LayerNormParams) == 48, "src/ops/layer_norm/cuda.rs mirrors this");

// --- layer_norm: rows in registers ---------------------------------------------------------------------------
// [rows, channels] => the same; 256 threads: 8, 16 or 32 lanes a row, five times eight channels a lane; channels
// a multiple of 8, addresses of 16; moves 2 * rows * channels elements. 320, 640 and 1280 channels fill every
// lane of 8, 16 and 32.

constexpr int LANE_VECTORS = 5;

__device__ __forceinline__ float sum_over_lanes(float value, unsigned lanes) {
    for (unsigned bits = lanes / 2; bits > 0; bits /= 2) value += __shfl_xor_sync(ALL_LANES, value, bits);
    return value;
}

template <typename T>
__device__ void layer_norm(const LayerNormParams& p) {
    unsigned lane = thread() % p.lanes;
    uint64_t row = uint64_t(blockIdx.x) * (blockDim.x / p.lanes) + thread() / p.lanes;
    // Rows beyond the last take part in the sums with nothing.
    unsigned vectors = row < p.rows ? p.channels / 8 : 0;
    const T* x = static_cast<const T*>(p.x) + row * p.channels;
    Packed8<T> packed[LANE_VECTORS];
    float v[8], sum = 0.0f, spread = 0.0f;
#pragma unroll
    for (int i = 0; i < LANE_VECTORS; i++) {
        unsigned vector = i * p.lanes + lane;
        if (vector < vectors) packed[i] = load_packed(x + vector * 8);
    }
#pragma unroll
    for (int i = 0; i < LANE_VECTORS; i++) {
        if (i * p.lanes + lane >= vectors) break;
        unpack(packed[i], v);
#pragma unroll
        for (int j = 0; j < 8; j++) sum += v[j];
    }
    float mean = sum_over_lanes(sum, p.lanes) / float(p.channels);
#pragma unroll
    for (int i = 0; i < LANE_VECTORS; i++) {
        if (i * p.lanes + lane >= vectors) break;
        unpack(packed[i], v);
#pragma unroll
        for (int j = 0; j < 8; j++) spread += (v[j] - mean) * (v[j] - mean);
    }
    float inverse = 1.0f / sqrtf(sum_over_lanes(spread, p.lanes) / float(p.channels) + p.eps);
    T* out = static_cast<T*>(p.out) + row * p.channels;
#pragma unroll
    for (int i = 0; i < LANE_VECTORS; i++) {
        unsigned channel = (i * p.lanes + lane) * 8;
        if (channel / 8 >= vectors) break;
        float gamma[8], beta[8];
        load_8(p.gamma + channel, gamma);
        load_8(p.beta + channel, beta);
        unpack(packed[i], v);
#pragma unroll
        for (int j = 0; j < 8; j++) v[j] = (v[j] - mean) * inverse * gamma[j] + beta[j];
        store_8(out + channel, v);
    }
}
KERNEL_ALL(layer_norm, LayerNormParams, 256, layer_norm)

// --- layer_norm_any: any number of channels at any address ---------------------------------------------------
// one block of 256 threads a row, which it reads three times

template <typename T>
__device__ void layer_norm_any(const LayerNormParams& p) {
    auto& scratch = shared_as<Reduction>();
    const T* x = static_cast<const T*>(p.x) + uint64_t(blockIdx.x) * p.channels;
    T* out = static_cast<T*>(p.out) + uint64_t(blockIdx.x) * p.channels;
    float sum = 0.0f, spread = 0.0f;
    for (unsigned i = thread(); i < p.channels; i += blockDim.x) sum += to_f32(x[i]);
    float mean = block_sum(sum, scratch) / float(p.channels);
    for (unsigned i = thread(); i < p.channels; i += blockDim.x) {
        float d = to_f32(x[i]) - mean;
        spread += d * d;
    }
    float inverse = 1.0f / sqrtf(block_sum(spread, scratch) / float(p.channels) + p.eps);
    for (unsigned i = thread(); i < p.channels; i += blockDim.x)
        out[i] = from_f32<T>((to_f32(x[i]) - mean) * inverse * p.gamma[i] + p.beta[i]);
}
KERNEL_ALL(layer_norm_any, LayerNormParams, 256, layer_norm_any)
