// Pointwise functions in f32. Activations are numbered as ops::Activation is in src/ops/gpu.rs.
#pragma once

__device__ __forceinline__ float sigmoid(float x) { return __fdividef(1.0f, 1.0f + __expf(-x)); }

__device__ __forceinline__ float silu(float x) { return x * sigmoid(x); }

// x * Phi(x), the exact form.
__device__ __forceinline__ float gelu(float x) { return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f)); }

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

// The same for eight values: one branch for all.
__device__ __forceinline__ void activate_8(float (&v)[8], unsigned activation, float slope) {
    switch (activation) {
        case ACT_SILU:
#pragma unroll
            for (int i = 0; i < 8; i++) v[i] = silu(v[i]);
            break;
        case ACT_RELU:
#pragma unroll
            for (int i = 0; i < 8; i++) v[i] = v[i] > 0.0f ? v[i] : 0.0f;
            break;
        case ACT_LEAKY_RELU:
#pragma unroll
            for (int i = 0; i < 8; i++) v[i] = v[i] > 0.0f ? v[i] : slope * v[i];
            break;
        case ACT_GELU:
#pragma unroll
            for (int i = 0; i < 8; i++) v[i] = gelu(v[i]);
            break;
        default: break;
    }
}
