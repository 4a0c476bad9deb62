// Blocks of factor x factor pixels: their means, and their pixels as channels. One element a thread.
#include "common/kernel.cuh"

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
    float sum = 0.0f, share = 1.0f / float(p.factor * p.factor);
    for (unsigned y = 0; y < p.factor; y++)
        for (unsigned x = 0; x < p.factor; x++) sum += to_f32(in[(uint64_t(y) * p.width + x) * p.channels]);
    static_cast<T*>(p.out)[i] = from_f32<T>(sum * share);
}
KERNEL_ALL(average_pool, BlocksParams, 256, average_pool)

// The gradient of average_pool: in [n, rows, columns, channels] => [n, height, width, channels]; 256 threads; moves
// (1 + 1 / factor^2) elements for each of out
template <typename T>
__device__ void average_pool_gradient(const BlocksParams& p) {
    unsigned i = blockIdx.x * blockDim.x + thread();
    if (i >= p.elements) return;
    unsigned channel = i % p.channels, x = i / p.channels % p.width, line = i / p.channels / p.width;
    unsigned row = line % p.height / p.factor, column = x / p.factor, image = line / p.height;
    float value = 0.0f, share = 1.0f / float(p.factor * p.factor);
    // Pixels that fill no block got no part in a mean.
    if (row < p.rows && column < p.columns) {
        uint64_t block = (uint64_t(image) * p.rows + row) * p.columns + column;
        value = to_f32(static_cast<const T*>(p.in)[block * p.channels + channel]) * share;
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
