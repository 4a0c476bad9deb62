// Gradients of pointwise ops. Each thread makes eight consecutive elements of a row.
#include "common/columns.cuh"
#include "common/kernel.cuh"
#include "common/math.cuh"

// --- pointwise_gradient: out = gradient * activation'(x) -----------------------------------------------------
// [count] => [count]; 256 threads; moves 3 * count elements

struct PointwiseGradientParams {
    void* out;
    const void* x;
    const void* gradient;
    uint64_t count;
    unsigned activation;
    float slope;
    // every address is a multiple of 16
    unsigned aligned;
    unsigned pad;
};
static_assert(sizeof(PointwiseGradientParams) == 48, "src/ops/elementwise/cuda_backward.rs mirrors this");

template <typename T>
__device__ void pointwise_gradient(const PointwiseGradientParams& p) {
    uint64_t first = (uint64_t(blockIdx.x) * blockDim.x + thread()) * 8;
    if (first >= p.count) return;
    int own = p.count - first < 8 ? int(p.count - first) : 8;
    float x[8], gradient[8];
    load_up_to_8(static_cast<const T*>(p.x) + first, x, own, p.aligned);
    load_up_to_8(static_cast<const T*>(p.gradient) + first, gradient, own, p.aligned);
    multiply_by_slope(gradient, x, p.activation, p.slope);
    store_up_to_8(static_cast<T*>(p.out) + first, gradient, own, p.aligned);
}
KERNEL_ALL(pointwise_gradient, PointwiseGradientParams, 256, pointwise_gradient)

// --- slice_channels: out = x[:, first : first + count] -------------------------------------------------------
// [rows, channels] => [rows, count]; 256 threads; moves 2 * rows * count elements

struct SliceChannelsParams {
    void* out;
    const void* x;
    uint64_t vectors;  // rows * divide_up(count, 8)
    unsigned channels, first, count;
    // first, count and channels are multiples of 8, addresses of 16
    unsigned aligned;
};
static_assert(sizeof(SliceChannelsParams) == 40, "src/ops/elementwise/cuda_backward.rs mirrors this");

template <typename T>
__device__ void slice_channels(const SliceChannelsParams& p) {
    uint64_t i = uint64_t(blockIdx.x) * blockDim.x + thread();
    if (i >= p.vectors) return;
    unsigned wide = divide_up(p.count, 8u), channel = unsigned(i % wide) * 8;
    uint64_t row = i / wide;
    int own = own_channels(channel, p.count);
    float values[8];
    load_up_to_8(static_cast<const T*>(p.x) + row * p.channels + p.first + channel, values, own, p.aligned);
    store_up_to_8(static_cast<T*>(p.out) + row * p.count + channel, values, own, p.aligned);
}
KERNEL_ALL(slice_channels, SliceChannelsParams, 256, slice_channels)

// --- gate_gradient: [gradient * gelu(gate) | gradient * value * gelu'(gate)] ---------------------------------
// both = [value | gate] [rows, 2h], gradient [rows, h] => [rows, 2h]; 256 threads; moves 5 * rows * h elements

struct GateGradientParams {
    void* out;
    const void* both;
    const void* gradient;
    uint64_t vectors;  // rows * divide_up(h, 8)
    unsigned h;
    // h is a multiple of 8, addresses of 16
    unsigned aligned;
};
static_assert(sizeof(GateGradientParams) == 40, "src/ops/linear/cuda_backward.rs mirrors this");

template <typename T>
__device__ void gate_gradient(const GateGradientParams& p) {
    uint64_t i = uint64_t(blockIdx.x) * blockDim.x + thread();
    if (i >= p.vectors) return;
    unsigned wide = divide_up(p.h, 8u), column = unsigned(i % wide) * 8;
    uint64_t row = i / wide, first = row * 2 * p.h + column;
    int own = own_channels(column, p.h);
    float value[8], gate[8], gradient[8];
    load_up_to_8(static_cast<const T*>(p.both) + first, value, own, p.aligned);
    load_up_to_8(static_cast<const T*>(p.both) + first + p.h, gate, own, p.aligned);
    load_up_to_8(static_cast<const T*>(p.gradient) + row * p.h + column, gradient, own, p.aligned);
#pragma unroll
    for (int j = 0; j < 8; j++) {
        value[j] *= gradient[j] * gelu_slope(gate[j]);
        gate[j] = gradient[j] * gelu(gate[j]);
    }
    store_up_to_8(static_cast<T*>(p.out) + first, gate, own, p.aligned);
    store_up_to_8(static_cast<T*>(p.out) + first + p.h, value, own, p.aligned);
}
KERNEL_ALL(gate_gradient, GateGradientParams, 256, gate_gradient)

// --- column_sums: out[group] = scale * sum of the rows of a group ---------------------------------------------
// [groups, rows, channels] => [groups, channels] as T or f32; 256 threads, 64 channels of a slice of rows; moves
// groups * rows * channels elements

struct ColumnSumsParams {
    void* out;
    const void* x;
    float scale;
    unsigned out_f32;
    // channels are a multiple of 8, the address of x of 16
    unsigned aligned;
    unsigned pad;
    Columns columns;
};
static_assert(sizeof(ColumnSumsParams) == 72, "src/ops/sums/cuda.rs mirrors this");

template <typename T, bool WHOLE>
__device__ __forceinline__ void add_lines(const ColumnSumsParams& p, unsigned channel, int own, float (&sums)[1][8]) {
    constexpr int UNROLL = 4;
    const Columns& c = p.columns;
    unsigned first, end;
    column_rows(c, first, end);
    const T* x = static_cast<const T*>(p.x) + uint64_t(blockIdx.y) * c.rows * c.channels + channel;
    Fetched<T, WHOLE> line[UNROLL];
    for (unsigned row = first + column_row(); row < end; row += UNROLL * COLUMN_ROWS) {
#pragma unroll
        for (int i = 0; i < UNROLL; i++) {
            unsigned at = row + i * COLUMN_ROWS;
            line[i].load(x + uint64_t(at < end ? at : row) * c.channels, own);
        }
#pragma unroll
        for (int i = 0; i < UNROLL; i++) {
            float values[8];
            bool there = row + i * COLUMN_ROWS < end;
            line[i].get(values);
#pragma unroll
            for (int j = 0; j < 8; j++) sums[0][j] += there ? values[j] : 0.0f;
        }
    }
}

template <typename T>
__device__ void column_sums(const ColumnSumsParams& p) {
    unsigned channel = first_channel(p.columns);
    int own = own_channels(channel, p.columns.channels);
    float sums[1][8] = {};
    if (own > 0) {
        if (p.aligned)
            add_lines<T, true>(p, channel, own, sums);
        else
            add_lines<T, false>(p, channel, own, sums);
    }
    finish_columns(p.columns, sums, shared_as<ColumnShared<1>>(), [&](unsigned group, unsigned at, float (&total)[1]) {
        uint64_t to = uint64_t(group) * p.columns.channels + at;
        if (p.out_f32)
            static_cast<float*>(p.out)[to] = p.scale * total[0];
        else
            static_cast<T*>(p.out)[to] = from_f32<T>(p.scale * total[0]);
    });
}
KERNEL_ALL(column_sums, ColumnSumsParams, 256, column_sums)
