// Token matrices put together, and blocks of pixels: what moves whole elements. One element a thread.
#include "common/kernel.cuh"

// --- move_tokens: out[n, to + l] = factor * in[n, from + l], or of the one token of an image ------------------
// in [n, in_tokens, c] => tokens `to` to `to + count` of out [n, out_tokens, c]; 256 threads; moves 2 * n * count * c
// elements

struct MoveTokensParams {
    void* out;
    const void* in;
    unsigned elements;  // n * count * c
    unsigned channels, count;
    unsigned out_tokens, to;
    unsigned in_tokens, from;
    // 1 to go through the tokens of an image, 0 to repeat the first
    unsigned step;
    float factor;
    unsigned pad;
};
static_assert(sizeof(MoveTokensParams) == 56, "src/ops/tokens/cuda.rs mirrors this");

template <typename T>
__device__ void move_tokens(const MoveTokensParams& p) {
    unsigned i = blockIdx.x * blockDim.x + thread();
    if (i >= p.elements) return;
    unsigned channel = i % p.channels, token = i / p.channels % p.count, image = i / p.channels / p.count;
    uint64_t from = uint64_t(image) * p.in_tokens + p.from + token * p.step;
    uint64_t to = uint64_t(image) * p.out_tokens + p.to + token;
    float value = to_f32(static_cast<const T*>(p.in)[from * p.channels + channel]);
    static_cast<T*>(p.out)[to * p.channels + channel] = from_f32<T>(value * p.factor);
}
KERNEL_ALL(move_tokens, MoveTokensParams, 256, move_tokens)

// --- blocks of factor x factor pixels -------------------------------------------------------------------------

struct BlocksParams {
    void* out;
    const void* in;
    unsigned elements;  // of out
    unsigned factor;
    unsigned channels;       // of a pixel of the full image
    unsigned height, width;  // of the full image
    unsigned rows, columns;  // of blocks
    unsigned pad;
};
static_assert(sizeof(BlocksParams) == 48, "src/ops/pixel_blocks.rs mirrors this");

// [n, height, width, channels] => [n, rows, columns, channels], means; 256 threads; moves (factor^2 + 1) elements for
// each of out
template <typename T>
__device__ void average_pool(const BlocksParams& p) {
    unsigned i = blockIdx.x * blockDim.x + thread();
    if (i >= p.elements) return;
    unsigned channel = i % p.channels, column = i / p.channels % p.columns;
    unsigned line = i / p.channels / p.columns, row = line % p.rows, image = line / p.rows;
    uint64_t first = (uint64_t(image) * p.height + row * p.factor) * p.width + column * p.factor;
    const T* in = static_cast<const T*>(p.in) + first * p.channels + channel;
    float sum = 0.0f;
    for (unsigned y = 0; y < p.factor; y++)
        for (unsigned x = 0; x < p.factor; x++) sum += to_f32(in[(uint64_t(y) * p.width + x) * p.channels]);
    static_cast<T*>(p.out)[i] = from_f32<T>(sum * (1.0f / float(p.factor * p.factor)));
}
KERNEL_ALL(average_pool, BlocksParams, 256, average_pool)

// The gradient of average_pool: in [n, rows, columns, channels] => [n, height, width, channels]; 256 threads
template <typename T>
__device__ void average_pool_gradient(const BlocksParams& p) {
    unsigned i = blockIdx.x * blockDim.x + thread();
    if (i >= p.elements) return;
    unsigned channel = i % p.channels, x = i / p.channels % p.width, line = i / p.channels / p.width;
    unsigned row = line % p.height / p.factor, column = x / p.factor, image = line / p.height;
    float value = 0.0f;
    // Pixels that fill no block got no part in a mean.
    if (row < p.rows && column < p.columns) {
        uint64_t block = (uint64_t(image) * p.rows + row) * p.columns + column;
        value = to_f32(static_cast<const T*>(p.in)[block * p.channels + channel]) / float(p.factor * p.factor);
    }
    static_cast<T*>(p.out)[i] = from_f32<T>(value);
}
KERNEL_ALL(average_pool_gradient, BlocksParams, 256, average_pool_gradient)

// [n, height, width, channels] => [n, rows, columns, channels * factor^2], a pixel's channel before its place in the
// block; 256 threads; moves 2 elements for each of out
template <typename T>
__device__ void pixel_unshuffle(const BlocksParams& p) {
    unsigned i = blockIdx.x * blockDim.x + thread();
    if (i >= p.elements) return;
    unsigned area = p.factor * p.factor, at = i % area, channel = i / area % p.channels;
    unsigned block = i / area / p.channels, column = block % p.columns, row = block / p.columns;
    // Rows of blocks of different images follow each other.
    uint64_t y = uint64_t(row) * p.factor + at / p.factor, x = column * p.factor + at % p.factor;
    static_cast<T*>(p.out)[i] = static_cast<const T*>(p.in)[(y * p.width + x) * p.channels + channel];
}
KERNEL_ALL(pixel_unshuffle, BlocksParams, 256, pixel_unshuffle)
