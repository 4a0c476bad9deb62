// Gradients of layer norms. With x^ = (x - mean) * r and g = dy * gamma:
// dx = r * (g - mean(g) - x^ * mean(g * x^)), dgamma = sum of dy * x^, dbeta = sum of dy.
#include "common/columns.cuh"
#include "common/kernel.cuh"
#include "common/reduce.cuh"
#include "common/vector.cuh"

struct LayerNormBackwardParams {
    void* out;
    const void* x;
    const void* gradient;
    const float* gamma;
    float2* statistics;  // [rows]: mean and r, for layer_norm_weights; or absent
    unsigned rows;
    unsigned channels;
    unsigned lanes;  // of a warp that share a row
    float eps;
};
static_assert(sizeof(LayerNormBackwardParams) == 56, "src/ops/layer_norm/cuda_backward.rs mirrors this");

// --- layer_norm_backward: rows in registers --------------------------------------------------------------------
// [rows, channels] => the same; 256 threads: 8, 16 or 32 lanes a row, five times eight channels a lane; channels
// a multiple of 8, addresses of 16; moves 3 * rows * channels elements

constexpr int LANE_VECTORS = 5;

__device__ __forceinline__ float sum_over_lanes(float value, unsigned lanes) {
    for (unsigned bits = lanes / 2; bits > 0; bits /= 2) value += __shfl_xor_sync(ALL_LANES, value, bits);
    return value;
}

template <typename T>
__device__ void layer_norm_backward(const LayerNormBackwardParams& p) {
    unsigned lane = thread() % p.lanes;
    uint64_t row = uint64_t(blockIdx.x) * (blockDim.x / p.lanes) + thread() / p.lanes;
    // Rows beyond the last take part in the sums with nothing.
    unsigned vectors = row < p.rows ? p.channels / 8 : 0;
    float width = float(p.channels);
    const T* x = static_cast<const T*>(p.x) + row * p.channels;
    const T* gradient = static_cast<const T*>(p.gradient) + row * p.channels;
    Packed8<T> packed_x[LANE_VECTORS], packed_gradient[LANE_VECTORS];
    float v[8], g[8], gamma[8], sum = 0.0f, spread = 0.0f, plain = 0.0f, along = 0.0f;
#pragma unroll
    for (int i = 0; i < LANE_VECTORS; i++) {
        unsigned vector = i * p.lanes + lane;
        if (vector >= vectors) break;
        packed_x[i] = load_packed(x + vector * 8);
        packed_gradient[i] = load_packed(gradient + vector * 8);
    }
#pragma unroll
    for (int i = 0; i < LANE_VECTORS; i++) {
        if (i * p.lanes + lane >= vectors) break;
        unpack(packed_x[i], v);
#pragma unroll
        for (int j = 0; j < 8; j++) sum += v[j];
    }
    float mean = sum_over_lanes(sum, p.lanes) / width;
#pragma unroll
    for (int i = 0; i < LANE_VECTORS; i++) {
        if (i * p.lanes + lane >= vectors) break;
        unpack(packed_x[i], v);
#pragma unroll
        for (int j = 0; j < 8; j++) spread += (v[j] - mean) * (v[j] - mean);
    }
    float inverse = 1.0f / sqrtf(sum_over_lanes(spread, p.lanes) / width + p.eps);
#pragma unroll
    for (int i = 0; i < LANE_VECTORS; i++) {
        unsigned vector = i * p.lanes + lane;
        if (vector >= vectors) break;
        load_8(p.gamma + vector * 8, gamma);
        unpack(packed_x[i], v);
        unpack(packed_gradient[i], g);
#pragma unroll
        for (int j = 0; j < 8; j++) {
            float inner = g[j] * gamma[j];
            plain += inner;
            along += inner * ((v[j] - mean) * inverse);
        }
    }
    plain = sum_over_lanes(plain, p.lanes) / width;
    along = sum_over_lanes(along, p.lanes) / width;
    T* out = static_cast<T*>(p.out) + row * p.channels;
#pragma unroll
    for (int i = 0; i < LANE_VECTORS; i++) {
        unsigned vector = i * p.lanes + lane;
        if (vector >= vectors) break;
        load_8(p.gamma + vector * 8, gamma);
        unpack(packed_x[i], v);
        unpack(packed_gradient[i], g);
#pragma unroll
        for (int j = 0; j < 8; j++) v[j] = inverse * (g[j] * gamma[j] - plain - (v[j] - mean) * inverse * along);
        store_8(out + vector * 8, v);
    }
    if (p.statistics && lane == 0 && vectors > 0) p.statistics[row] = make_float2(mean, inverse);
}
KERNEL_ALL(layer_norm_backward, LayerNormBackwardParams, 256, layer_norm_backward)

// --- layer_norm_backward_any: any number of channels at any address --------------------------------------------
// one block of 256 threads a row, which it reads four times

template <typename T>
__device__ void layer_norm_backward_any(const LayerNormBackwardParams& p) {
    auto& scratch = shared_as<Reduction>();
    uint64_t start = uint64_t(blockIdx.x) * p.channels;
    const T *x = static_cast<const T*>(p.x) + start, *gradient = static_cast<const T*>(p.gradient) + start;
    float sum = 0.0f, spread = 0.0f, plain = 0.0f, along = 0.0f, width = float(p.channels);
    for (unsigned i = thread(); i < p.channels; i += blockDim.x) sum += to_f32(x[i]);
    float mean = block_sum(sum, scratch) / width;
    for (unsigned i = thread(); i < p.channels; i += blockDim.x) {
        float d = to_f32(x[i]) - mean;
        spread += d * d;
    }
    float inverse = 1.0f / sqrtf(block_sum(spread, scratch) / width + p.eps);
    for (unsigned i = thread(); i < p.channels; i += blockDim.x) {
        float inner = to_f32(gradient[i]) * p.gamma[i];
        plain += inner;
        along += inner * ((to_f32(x[i]) - mean) * inverse);
    }
    plain = block_sum(plain, scratch) / width;
    along = block_sum(along, scratch) / width;
    T* out = static_cast<T*>(p.out) + start;
    for (unsigned i = thread(); i < p.channels; i += blockDim.x) {
        float normed = (to_f32(x[i]) - mean) * inverse;
        out[i] = from_f32<T>(inverse * (to_f32(gradient[i]) * p.gamma[i] - plain - normed * along));
    }
    if (p.statistics && thread() == 0) p.statistics[blockIdx.x] = make_float2(mean, inverse);
}
KERNEL_ALL(layer_norm_backward_any, LayerNormBackwardParams, 256, layer_norm_backward_any)

// --- layer_norm_weights: dgamma and dbeta ------------------------------------------------------------------------
// x, gradient [rows, channels], statistics [rows] => [channels] f32 each; 256 threads: 64 channels of a slice of
// rows; moves 2 * rows * channels elements

struct LayerNormWeightsParams {
    float* to_gamma;
    float* to_beta;
    const void* x;
    const void* gradient;
    const float2* statistics;
    // channels are a multiple of 8, addresses of 16
    unsigned aligned;
    unsigned pad;
    Columns columns;
};
static_assert(sizeof(LayerNormWeightsParams) == 88, "src/ops/layer_norm/cuda_backward.rs mirrors this");

template <typename T, bool WHOLE>
__device__ __forceinline__ void add_lines(const LayerNormWeightsParams& p, unsigned channel, int own,
                                          float (&sums)[2][8]) {
    constexpr int UNROLL = 2;
    const Columns& c = p.columns;
    unsigned first, end;
    column_rows(c, first, end);
    const T *x = static_cast<const T*>(p.x) + channel, *gradient = static_cast<const T*>(p.gradient) + channel;
    Fetched<T, WHOLE> line_x[UNROLL], line_gradient[UNROLL];
    float2 statistics[UNROLL];
    for (unsigned row = first + column_row(); row < end; row += UNROLL * COLUMN_ROWS) {
#pragma unroll
        for (int i = 0; i < UNROLL; i++) {
            uint64_t at = row + i * COLUMN_ROWS < end ? row + i * COLUMN_ROWS : row;
            line_x[i].load(x + at * c.channels, own);
            line_gradient[i].load(gradient + at * c.channels, own);
            statistics[i] = p.statistics[at];
        }
#pragma unroll
        for (int i = 0; i < UNROLL; i++) {
            if (row + i * COLUMN_ROWS >= end) break;
            float v[8], g[8];
            line_x[i].get(v);
            line_gradient[i].get(g);
#pragma unroll
            for (int j = 0; j < 8; j++) {
                sums[0][j] += g[j] * ((v[j] - statistics[i].x) * statistics[i].y);
                sums[1][j] += g[j];
            }
        }
    }
}

template <typename T>
__device__ void layer_norm_weights(const LayerNormWeightsParams& p) {
    unsigned channel = first_channel(p.columns);
    int own = own_channels(channel, p.columns.channels);
    float sums[2][8] = {};
    if (own > 0) {
        if (p.aligned)
            add_lines<T, true>(p, channel, own, sums);
        else
            add_lines<T, false>(p, channel, own, sums);
    }
    finish_columns(p.columns, sums, shared_as<ColumnShared<2>>(), [&](unsigned, unsigned at, float (&total)[2]) {
        p.to_gamma[at] = total[0];
        p.to_beta[at] = total[1];
    });
}
KERNEL_ALL(layer_norm_weights, LayerNormWeightsParams, 256, layer_norm_weights)
