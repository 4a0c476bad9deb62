// Gradients of group norms: of the affine map, and of the statistics and weights that its coefficients came from.
#include "common/columns.cuh"
#include "common/kernel.cuh"
#include "common/math.cuh"
#include "common/segments.cuh"

// --- affine_gradient: y = activation(v), v = x * a + b ---------------------------------------------------------
// With g = dy * activation'(v): out = g * a, and of the coefficients da = sum of g * x, db = sum of g.
// parts [images, area, c], coefficients [images, 2, channels] f32, gradient [images, area, channels] =>
// out [images, area, channels], sums [images, 2, channels] f32; 256 threads: 64 channels of a slice of rows; moves
// 3 to 4 * images * area * channels elements

struct AffineGradientParams {
    void* out;
    float* sums;
    const void* gradient;
    const float* coefficients;
    unsigned activation;
    float slope;
    Columns columns;
    Segments segments;
};
static_assert(sizeof(AffineGradientParams) == 256, "src/ops/group_norm/cuda_backward.rs mirrors this");

// Adds g * x and g of the block's rows to `sums` and writes g * a.
template <typename T, SegmentKind KIND>
__device__ __forceinline__ void gradient_rows(const AffineGradientParams& p, const SegmentColumn<T>& column, int own,
                                              float (&sums)[2][8]) {
    constexpr int UNROLL = 2;
    constexpr bool WHOLE = KIND != ELEMENTS;
    const Columns& c = p.columns;
    unsigned first, end;
    column_rows(c, first, end);
    uint64_t image = uint64_t(blockIdx.y) * c.rows;
    float a[8], b[8];
    const float* coefficients = p.coefficients + uint64_t(blockIdx.y) * 2 * c.channels + column.channel;
    load_up_to_8(coefficients, a, own, WHOLE);
    load_up_to_8(coefficients + c.channels, b, own, WHOLE);
    const T* gradients = static_cast<const T*>(p.gradient) + column.channel;
    for (unsigned row = first + column_row(); row < end; row += UNROLL * COLUMN_ROWS) {
        SegmentLine<T, KIND> line[UNROLL];
        Fetched<T, WHOLE> line_of_gradient[UNROLL];
#pragma unroll
        for (int i = 0; i < UNROLL; i++) {
            uint64_t pixel = image + (row + i * COLUMN_ROWS < end ? row + i * COLUMN_ROWS : row);
            line[i].load(p.segments, column, pixel);
            line_of_gradient[i].load(gradients + pixel * c.channels, own);
        }
#pragma unroll
        for (int i = 0; i < UNROLL; i++) {
            if (row + i * COLUMN_ROWS >= end) break;
            float x[8], gradient[8], inner[8];
            line[i].get(x);
            line_of_gradient[i].get(gradient);
#pragma unroll
            for (int j = 0; j < 8; j++) inner[j] = x[j] * a[j] + b[j];
            multiply_by_slope(gradient, inner, p.activation, p.slope);
#pragma unroll
            for (int j = 0; j < 8; j++) {
                sums[0][j] += gradient[j] * x[j];
                sums[1][j] += gradient[j];
                gradient[j] *= a[j];
            }
            uint64_t to = (image + row + i * COLUMN_ROWS) * c.channels + column.channel;
            store_up_to_8(static_cast<T*>(p.out) + to, gradient, own, WHOLE);
        }
    }
}

template <typename T>
__device__ void affine_gradient(const AffineGradientParams& p) {
    const Columns& c = p.columns;
    unsigned channel = first_channel(c);
    int own = own_channels(channel, c.channels);
    float sums[2][8] = {};
    if (own > 0) {
        SegmentColumn<T> column = segment_column<T>(p.segments, channel);
        if (!p.segments.aligned)
            gradient_rows<T, ELEMENTS>(p, column, own, sums);
        else if (column.plus)
            gradient_rows<T, SUM_OF_TWO>(p, column, own, sums);
        else
            gradient_rows<T, ONE_TENSOR>(p, column, own, sums);
    }
    finish_columns(c, sums, shared_as<ColumnShared<2>>(), [&](unsigned group, unsigned at, float (&total)[2]) {
        float* to = p.sums + uint64_t(group) * 2 * c.channels + at;
        to[0] = total[0];
        to[c.channels] = total[1];
    });
}
KERNEL_ALL(affine_gradient, AffineGradientParams, 256, affine_gradient)

// --- group_norm_fold: from the gradients of the coefficients to those of weights and statistics ----------------
// With r = 1 / deviation, A = gamma * r, B = beta - mean * A, f = 1 + scale: a = A * f and b = B * f + shift.
// gradient [images, 2, channels] => map [images, 2, channels] (p and q of what mean and deviation add to the
// gradient of x, x * p + q), gamma and beta [channels], adaln [adaln_rows, 2 * channels], all f32.
// 128 threads a group; grid (groups, images + 1): the last row of blocks makes the gradients of the weights.

struct GroupNormFoldParams {
    float* map;
    float* to_gamma;
    float* to_beta;
    float* to_adaln;        // or absent
    const float* gradient;
    const float* statistics;  // [images, groups, 2]: means, then 1 / deviation
    const float* gamma;
    const float* beta;
    const void* adaln;  // [adaln_rows, 2 * channels] or absent
    unsigned images, groups, channels, area;
    unsigned adaln_rows, adaln_f32;
};
static_assert(sizeof(GroupNormFoldParams) == 96, "src/ops/group_norm/cuda_backward.rs mirrors this");

// What one channel of one image contributes.
struct Contribution {
    float to_gamma, to_beta, to_scale, to_shift;
    float to_mean, to_inverse;
};

template <typename T>
__device__ __forceinline__ Contribution contribution(const GroupNormFoldParams& p, unsigned image, unsigned channel,
                                                     float mean, float inverse) {
    const float* gradient = p.gradient + uint64_t(image) * 2 * p.channels + channel;
    float to_a = gradient[0], to_b = gradient[p.channels], gamma = p.gamma[channel];
    float own_scale = gamma * inverse, own_shift = p.beta[channel] - mean * own_scale, factor = 1.0f;
    if (p.adaln) {
        uint64_t at = uint64_t(p.adaln_rows == 1 ? 0 : image) * 2 * p.channels + channel;
        factor += p.adaln_f32 ? static_cast<const float*>(p.adaln)[at] : to_f32(static_cast<const T*>(p.adaln)[at]);
    }
    Contribution c;
    c.to_scale = to_a * own_scale + to_b * own_shift;
    c.to_shift = to_b;
    c.to_beta = to_b * factor;
    float to_own_scale = to_a * factor - mean * c.to_beta;
    c.to_gamma = to_own_scale * inverse;
    c.to_mean = -own_scale * c.to_beta;
    c.to_inverse = to_own_scale * gamma;
    return c;
}

template <typename T>
__device__ void group_norm_fold(const GroupNormFoldParams& p) {
    auto& scratch = shared_as<Reduction>();
    unsigned group = blockIdx.x, width = p.channels / p.groups, base = group * width;
    if (blockIdx.y < p.images) {
        unsigned image = blockIdx.y;
        const float* statistics = p.statistics + (uint64_t(image) * p.groups + group) * 2;
        float mean = statistics[0], inverse = statistics[1], to_mean = 0.0f, to_inverse = 0.0f;
        for (unsigned i = thread(); i < width; i += blockDim.x) {
            Contribution c = contribution<T>(p, image, base + i, mean, inverse);
            to_mean += c.to_mean;
            to_inverse += c.to_inverse;
        }
        to_mean = block_sum(to_mean, scratch);
        to_inverse = block_sum(to_inverse, scratch);
        // r = (variance + eps)^(-1/2), the variance being the mean of (x - mean)^2
        float count = float(p.area) * float(width);
        float slope = -to_inverse * inverse * inverse * inverse / count, shift = to_mean / count - slope * mean;
        float* map = p.map + uint64_t(image) * 2 * p.channels + base;
        for (unsigned i = thread(); i < width; i += blockDim.x) {
            map[i] = slope;
            map[p.channels + i] = shift;
        }
        return;
    }
    for (unsigned i = thread(); i < width; i += blockDim.x) {
        unsigned channel = base + i;
        float to_gamma = 0.0f, to_beta = 0.0f, to_scale = 0.0f, to_shift = 0.0f;
        for (unsigned image = 0; image < p.images; image++) {
            const float* statistics = p.statistics + (uint64_t(image) * p.groups + group) * 2;
            Contribution c = contribution<T>(p, image, channel, statistics[0], statistics[1]);
            to_gamma += c.to_gamma;
            to_beta += c.to_beta;
            to_scale += c.to_scale;
            to_shift += c.to_shift;
            // Rows of their own are complete with each image, a row for all after the last.
            if (p.to_adaln && (p.adaln_rows > 1 || image + 1 == p.images)) {
                float* to = p.to_adaln + uint64_t(p.adaln_rows > 1 ? image : 0) * 2 * p.channels + channel;
                to[0] = to_scale;
                to[p.channels] = to_shift;
                to_scale = to_shift = 0.0f;
            }
        }
        p.to_gamma[channel] = to_gamma;
        p.to_beta[channel] = to_beta;
    }
}
KERNEL_ALL(group_norm_fold, GroupNormFoldParams, 128, group_norm_fold)
