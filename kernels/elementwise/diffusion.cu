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

// --- posterior_gradient: in the moments of a posterior ----------------------------------------------------
// moments [pixels, 2 * channels] f32 (mean m | log variance l), gradient of the latent and its noise
// [pixels, channels] f32, each or absent => [pixels, 2 * channels] f32; a thread for a channel of a pixel; 256 threads
//
//   in m: scale * gradient + divergence * m
//   in l: (scale * gradient * noise * exp(l / 2) + divergence * (exp(l) - 1)) / 2, 0 beyond the clamp of l

struct PosteriorGradientParams {
    float* out;
    const float* moments;
    const float* gradient;
    const float* noise;
    uint64_t count;
    unsigned channels;
    float scale;
    float divergence;
    unsigned pad;
};
static_assert(sizeof(PosteriorGradientParams) == 56, "src/ops/diffusion/cuda.rs mirrors this");

__device__ __forceinline__ void posterior_gradient(const PosteriorGradientParams& p) {
    uint64_t i = uint64_t(blockIdx.x) * blockDim.x + thread();
    if (i >= p.count) return;
    uint64_t place = (i / p.channels) * 2 * p.channels + i % p.channels;
    float mean = p.moments[place], log_variance = p.moments[place + p.channels];
    float gradient = p.gradient ? p.scale * p.gradient[i] : 0.0f;
    float noise = p.noise ? p.noise[i] : 0.0f;
    float deviation = expf(0.5f * log_variance);
    bool inside = log_variance >= -30.0f && log_variance <= 20.0f;
    float slope = 0.5f * (gradient * noise * deviation + p.divergence * (deviation * deviation - 1.0f));
    p.out[place] = gradient + p.divergence * mean;
    p.out[place + p.channels] = inside ? slope : 0.0f;
}
KERNEL(posterior_gradient_f32, PosteriorGradientParams, 256, posterior_gradient)
