// The pointwise arithmetic of sampling. Latents are small: one element a thread.
#include "common/kernel.cuh"

// --- ddpm_step: out = mean_from_x0 * (x0_from_x * x - x0_from_noise * eps) + mean_from_x * x
//                      + deviation * noise ---------------------------------------------------------------
// x, noise, out [count] f32, eps [count] T; 256 threads

struct DdpmStepParams {
    float* out;
    const float* x;
    const void* eps;
    const float* noise;
    uint64_t count;
    float x0_from_x;
    float x0_from_noise;
    float mean_from_x0;
    float mean_from_x;
    float deviation;
    unsigned pad;
};
static_assert(sizeof(DdpmStepParams) == 64, "src/ops/diffusion/cuda.rs mirrors this");

template <typename T>
__device__ void ddpm_step(const DdpmStepParams& p) {
    uint64_t i = uint64_t(blockIdx.x) * blockDim.x + thread();
    if (i >= p.count) return;
    float x = p.x[i], eps = to_f32(static_cast<const T*>(p.eps)[i]);
    float x0 = p.x0_from_x * x - p.x0_from_noise * eps;
    p.out[i] = p.mean_from_x0 * x0 + p.mean_from_x * x + p.deviation * p.noise[i];
}
KERNEL_ALL(ddpm_step, DdpmStepParams, 256, ddpm_step)

// --- posterior: out = scale * (mean + exp(log_variance / 2) * noise) -------------------------------------
// moments [pixels, 2 * channels] T (mean | log variance), noise [pixels, channels] f32 or absent
// => [pixels, channels] f32; 256 threads

struct PosteriorParams {
    float* out;
    const void* moments;
    const float* noise;
    uint64_t count;
    unsigned channels;
    float scale;
};
static_assert(sizeof(PosteriorParams) == 40, "src/ops/diffusion/cuda.rs mirrors this");

template <typename T>
__device__ void posterior(const PosteriorParams& p) {
    uint64_t i = uint64_t(blockIdx.x) * blockDim.x + thread();
    if (i >= p.count) return;
    uint64_t pixel = i / p.channels, channel = i % p.channels;
    const T* moments = static_cast<const T*>(p.moments) + pixel * 2 * p.channels;
    float value = to_f32(moments[channel]);
    if (p.noise) {
        float log_variance = fminf(fmaxf(to_f32(moments[p.channels + channel]), -30.0f), 20.0f);
        value += expf(0.5f * log_variance) * p.noise[i];
    }
    p.out[i] = p.scale * value;
}
KERNEL_ALL(posterior, PosteriorParams, 256, posterior)
