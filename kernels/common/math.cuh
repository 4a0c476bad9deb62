// Pointwise functions in f32. Activations are numbered as ops::Activation is in src/ops/gpu.rs.
#pragma once

__device__ __forceinline__ float sigmoid(float x) { return __fdividef(1.0f, 1.0f + __expf(-x)); }

__device__ __forceinline__ float silu(float x) { return x * sigmoid(x); }

// x * Phi(x), the exact form.
__device__ __forceinline__ float gelu(float x) { return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f)); }

// 2^x to two units in the last place, 0 for -infinity and for results below the normal numbers.
__device__ __forceinline__ float exp2_approximate(float x) {
#ifdef TASR_EMULATOR
    return exp2f(x);
#else
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#endif
}

enum Activation : unsigned { ACT_NONE = 0, ACT_SILU = 1, ACT_RELU = 2, ACT_LEAKY_RELU = 3, ACT_GELU = 4 };

__device__ __forceinline__ float activate(float x, unsigned activation, float slope) {
    switch (activation) {
        case ACT_SILU: return silu(x);
        case ACT_RELU: return x > 0.0f ? x : 0.0f;
        case ACT_LEAKY_RELU: return x > 0.0f ? x : slope * x;
        case ACT_GELU: return gelu(x);
        default: return x;
    }
}

// The same of several values: one decision for all of them.
template <int COUNT>
__device__ __forceinline__ void activate_all(float (&values)[COUNT], unsigned activation, float slope) {
    auto each = [&](auto function) {
#pragma unroll
        for (int i = 0; i < COUNT; i++) values[i] = function(values[i]);
    };
    switch (activation) {
        case ACT_SILU: return each([](float x) { return silu(x); });
        case ACT_RELU: return each([](float x) { return x > 0.0f ? x : 0.0f; });
        case ACT_LEAKY_RELU: return each([=](float x) { return x > 0.0f ? x : slope * x; });
        case ACT_GELU: return each([](float x) { return gelu(x); });
        default: return;
    }
}

// The derivative of silu: s * (1 + x * (1 - s)), s the sigmoid of x.
__device__ __forceinline__ float silu_slope(float x) {
    float s = sigmoid(x);
    return s * (1.0f + x * (1.0f - s));
}

// The derivative of gelu: Phi(x) + x * phi(x).
__device__ __forceinline__ float gelu_slope(float x) {
    return 0.5f * (1.0f + erff(x * 0.70710678118654752f)) + x * 0.39894228040143268f * __expf(-0.5f * x * x);
}

// Multiplies gradients by the derivative of the activation at x.
template <int COUNT>
__device__ __forceinline__ void multiply_by_slope(float (&gradient)[COUNT], const float (&x)[COUNT], unsigned activation,
                                                  float slope) {
    auto each = [&](auto derivative) {
#pragma unroll
        for (int i = 0; i < COUNT; i++) gradient[i] *= derivative(x[i]);
    };
    switch (activation) {
        case ACT_SILU: return each([](float x) { return silu_slope(x); });
        case ACT_RELU: return each([](float x) { return x > 0.0f ? 1.0f : 0.0f; });
        case ACT_LEAKY_RELU: return each([=](float x) { return x > 0.0f ? 1.0f : slope; });
        case ACT_GELU: return each([](float x) { return gelu_slope(x); });
        default: return;
    }
}
