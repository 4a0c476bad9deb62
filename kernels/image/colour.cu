// Colour fixing: the blur that splits off low frequencies, and channels matched in mean and deviation.
#include "common/kernel.cuh"

// --- blur: [1 2 1; 2 4 2; 1 2 1] / 16 dilated by `radius`, edges replicated ----------------------------------
// [images, h, w, channels] f32 => the same; 256 threads, one element each; moves 2 * count elements, the
// neighbours come from cache

struct BlurParams {
    float* out;
    const float* in;
    unsigned count;
    unsigned h, w, channels;
    unsigned radius;
    unsigned pad;
};
static_assert(sizeof(BlurParams) == 40, "src/ops/wavelet/cuda.rs mirrors this");

__device__ __forceinline__ void blur_image(const BlurParams& p) {
    unsigned i = blockIdx.x * blockDim.x + thread();
    if (i >= p.count) return;
    unsigned pixel = i / p.channels, x = pixel % p.w, line = pixel / p.w, y = line % p.h;
    unsigned left = x < p.radius ? x : p.radius, right = p.w - 1 - x < p.radius ? p.w - 1 - x : p.radius;
    unsigned above = y < p.radius ? y : p.radius, below = p.h - 1 - y < p.radius ? p.h - 1 - y : p.radius;
    const float* own = p.in + i;
    int64_t to_left = -int64_t(left) * p.channels, to_right = int64_t(right) * p.channels;
    auto across = [&](int64_t rows) {
        const float* row = own + rows * p.w * p.channels;
        return 0.25f * (row[to_left] + row[to_right]) + 0.5f * row[0];
    };
    p.out[i] = 0.25f * (across(-int64_t(above)) + across(below)) + 0.5f * across(0);
}
KERNEL(blur, BlurParams, 256, blur_image)

// --- match_channels: out = (x - mean) * wanted deviation / deviation + wanted mean ---------------------------
// x [images, area, channels] f32, statistics [images, channels, 2]: mean and 1 / deviation => like x; 256
// threads, one element each; moves 2 * count elements

struct MatchParams {
    float* out;
    const float* x;
    const float2* own;
    const float2* wanted;
    unsigned count;
    unsigned channels;
    unsigned image;  // elements of one
    unsigned pad;
};
static_assert(sizeof(MatchParams) == 48, "src/ops/wavelet/cuda.rs mirrors this");

__device__ __forceinline__ void match_image(const MatchParams& p) {
    unsigned i = blockIdx.x * blockDim.x + thread();
    if (i >= p.count) return;
    unsigned row = i / p.image * p.channels + i % p.channels;
    float2 own = p.own[row], wanted = p.wanted[row];
    p.out[i] = (p.x[i] - own.x) * (own.y / wanted.y) + wanted.x;
}
KERNEL(match_channels, MatchParams, 256, match_image)
