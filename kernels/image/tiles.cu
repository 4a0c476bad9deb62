// Windows cut out of images, and blended back. 256 threads, one element each.
#include "common/kernel.cuh"

// --- window: out[n, y, x] = in[n, y + top, x + left], zeros beyond the image ---------------------------------
// [images, from_h, from_w, channels] f32 => [images, h, w, channels]; moves 2 * count elements

struct WindowParams {
    float* out;
    const float* in;
    unsigned count;
    unsigned h, w, channels;
    unsigned from_h, from_w;
    unsigned top, left;
};
static_assert(sizeof(WindowParams) == 48, "src/ops/tiles/cuda.rs mirrors this");

__device__ __forceinline__ void cut_window(const WindowParams& p) {
    unsigned i = blockIdx.x * blockDim.x + thread();
    if (i >= p.count) return;
    unsigned width = p.w * p.channels, line = i / width, within = i % width, y = line % p.h + p.top;
    unsigned column = within + p.left * p.channels, row = p.from_w * p.channels;
    bool inside = y < p.from_h && column < row;
    p.out[i] = inside ? p.in[(uint64_t(line / p.h) * p.from_h + y) * row + column] : 0.0f;
}
KERNEL(window, WindowParams, 256, cut_window)

// --- blend_add: sums and weights of a canvas += profile * tile and profile, at a window ----------------------
// tile [images, h, w, channels], profile [h, w], sums [images, canvas_h, canvas_w, channels], weights
// [canvas_h, canvas_w], all f32; moves 3 * count elements

struct BlendAddParams {
    float* sums;
    float* weights;
    const float* tile;
    const float* profile;
    unsigned count;
    unsigned h, w, channels;
    unsigned canvas_h, canvas_w;
    unsigned top, left;
};
static_assert(sizeof(BlendAddParams) == 64, "src/ops/tiles/cuda.rs mirrors this");

__device__ __forceinline__ void add_tile(const BlendAddParams& p) {
    unsigned i = blockIdx.x * blockDim.x + thread();
    if (i >= p.count) return;
    unsigned channel = i % p.channels, pixel = i / p.channels, x = pixel % p.w, line = pixel / p.w;
    unsigned y = line % p.h, image = line / p.h;
    float weight = p.profile[y * p.w + x];
    uint64_t place = uint64_t(y + p.top) * p.canvas_w + x + p.left;
    p.sums[(uint64_t(image) * p.canvas_h * p.canvas_w + place) * p.channels + channel] += weight * p.tile[i];
    if (image == 0 && channel == 0) p.weights[place] += weight;
}
KERNEL(blend_add, BlendAddParams, 256, add_tile)

// --- blend_finish: sums /= weights ----------------------------------------------------------------------------
// sums [images, area, channels], weights [area], f32; moves 2 * count elements

struct BlendFinishParams {
    float* sums;
    const float* weights;
    unsigned count;
    unsigned area, channels;
    unsigned pad;
};
static_assert(sizeof(BlendFinishParams) == 32, "src/ops/tiles/cuda.rs mirrors this");

__device__ __forceinline__ void divide_by_weights(const BlendFinishParams& p) {
    unsigned i = blockIdx.x * blockDim.x + thread();
    if (i < p.count) p.sums[i] /= p.weights[i / p.channels % p.area];
}
KERNEL(blend_finish, BlendFinishParams, 256, divide_by_weights)
