// AdamW over many tensors in one launch, and the global norm of their gradients.
//
// Tensors are cut into chunks of CHUNK elements, a block each; a table in device memory lists them.
#include "common/grid.cuh"
#include "common/kernel.cuh"
#include "common/reduce.cuh"
#include "common/vector.cuh"

constexpr unsigned CHUNK = 8192, OPTIM_THREADS = 256;

// One tensor. Mirrored by Entry in src/ops/adamw/cuda.rs.
struct Parameter {
    float* master;
    float* first;   // running mean of gradients
    float* second;  // running mean of their squares
    const void* gradient;
    void* copy;  // what networks compute with, written in the same pass; or absent
    uint64_t count;
    unsigned chunks_end;     // chunks of this tensor and those before it
    unsigned gradient_type;  // of STORED
    unsigned copy_type;
    // every address is a multiple of 16
    unsigned aligned;
};
static_assert(sizeof(Parameter) == 64, "src/ops/adamw/cuda.rs mirrors this");

enum Stored : unsigned { STORED_F32 = 0, STORED_F16 = 1, STORED_BF16 = 2 };

// The tensor of chunk `chunk` and the chunk's first element, by bisection.
__device__ __forceinline__ unsigned find_parameter(const Parameter* table, unsigned parameters, unsigned chunk,
                                                   uint64_t& first) {
    unsigned low = 0, high = parameters - 1;
    while (low < high) {
        unsigned middle = (low + high) / 2;
        if (table[middle].chunks_end <= chunk)
            low = middle + 1;
        else
            high = middle;
    }
    first = uint64_t(chunk - (low == 0 ? 0 : table[low - 1].chunks_end)) * CHUNK;
    return low;
}

__device__ __forceinline__ void load_stored(const void* from, unsigned type, uint64_t at, float (&v)[8], int own,
                                            bool whole) {
    if (type == STORED_F32)
        load_up_to_8(static_cast<const float*>(from) + at, v, own, whole);
    else if (type == STORED_F16)
        load_up_to_8(static_cast<const f16*>(from) + at, v, own, whole);
    else
        load_up_to_8(static_cast<const bf16*>(from) + at, v, own, whole);
}

// --- gradient_norm: sqrt of the sum of squares of all gradients, times `scale` -----------------------------------
// table [parameters] => [1] f32; 256 threads a chunk; moves every gradient once

struct GradientNormParams {
    float* norm;
    const Parameter* table;
    float* partial;     // [chunks]
    unsigned* counter;  // [1]
    unsigned parameters;
    unsigned chunks;
    float scale;
    unsigned pad;
};
static_assert(sizeof(GradientNormParams) == 48, "src/ops/adamw/cuda.rs mirrors this");

struct GradientNormShared {
    Reduction scratch;
    double sums[OPTIM_THREADS];
    unsigned flag[2];
};
static_assert(sizeof(GradientNormShared) == 2184, "src/ops/adamw/cuda.rs knows this");

__device__ __forceinline__ void norm_of_gradients(const GradientNormParams& p) {
    auto& shared = shared_as<GradientNormShared>();
    uint64_t first;
    const Parameter parameter = p.table[find_parameter(p.table, p.parameters, blockIdx.x, first)];
    uint64_t end = parameter.count - first < CHUNK ? parameter.count : first + CHUNK;
    float sum = 0.0f;
#pragma unroll 2
    for (uint64_t at = first + thread() * 8; at < end; at += OPTIM_THREADS * 8) {
        float v[8];
        load_stored(parameter.gradient, parameter.gradient_type, at, v, end - at < 8 ? int(end - at) : 8,
                    parameter.aligned);
#pragma unroll
        for (int i = 0; i < 8; i++) sum += v[i] * v[i];
    }
    sum = block_sum(sum, shared.scratch);
    if (thread() == 0) p.partial[blockIdx.x] = sum;
    if (!arrive_last(p.counter, p.chunks, shared.flag[0])) return;
    double total = 0.0;
    for (unsigned i = thread(); i < p.chunks; i += OPTIM_THREADS) total += p.partial[i];
    shared.sums[thread()] = total;
    for (unsigned half = OPTIM_THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (thread() < half) shared.sums[thread()] += shared.sums[thread() + half];
    }
    if (thread() == 0) p.norm[0] = float(sqrt(shared.sums[0]) * double(p.scale));
}
KERNEL(gradient_norm, GradientNormParams, 256, norm_of_gradients)

// --- adamw: one step of every parameter ----------------------------------------------------------------------------
// g = gradient * scale * min(1, limit / (norm + 1e-6)); first += (1 - beta1) * (g - first);
// second += (1 - beta2) * (g^2 - second); master *= 1 - rate * decay;
// master -= step * first / (sqrt(second) * root + eps)
// with step = rate / (1 - beta1^t), root = 1 / sqrt(1 - beta2^t); 256 threads a chunk; moves 28 bytes an element
// with an f32 gradient, and 2 for a copy in halves

struct AdamWParams {
    const Parameter* table;
    const float* norm;  // of all gradients; or absent: no limit
    unsigned parameters;
    float limit;
    float scale;
    float keep;  // 1 - rate * decay
    float step;
    float root;
    float beta1, beta2;
    float eps;
    unsigned pad;
};
static_assert(sizeof(AdamWParams) == 56, "src/ops/adamw/cuda.rs mirrors this");

__device__ __forceinline__ void step_parameters(const AdamWParams& p) {
    uint64_t first;
    const Parameter parameter = p.table[find_parameter(p.table, p.parameters, blockIdx.x, first)];
    uint64_t end = parameter.count - first < CHUNK ? parameter.count : first + CHUNK;
    float scale = p.scale;
    if (p.norm) {
        float factor = p.limit / (p.norm[0] + 1e-6f);
        // Written so that a norm that is not a number reaches the weights and is seen.
        scale *= factor > 1.0f ? 1.0f : factor;
    }
    for (uint64_t at = first + thread() * 8; at < end; at += OPTIM_THREADS * 8) {
        int own = end - at < 8 ? int(end - at) : 8;
        bool whole = parameter.aligned;
        float g[8], master[8], mean[8], square[8];
        load_stored(parameter.gradient, parameter.gradient_type, at, g, own, whole);
        load_up_to_8(parameter.master + at, master, own, whole);
        load_up_to_8(parameter.first + at, mean, own, whole);
        load_up_to_8(parameter.second + at, square, own, whole);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            g[i] *= scale;
            mean[i] += (1.0f - p.beta1) * (g[i] - mean[i]);
            square[i] = p.beta2 * square[i] + (1.0f - p.beta2) * g[i] * g[i];
            master[i] = master[i] * p.keep - p.step * mean[i] / (sqrtf(square[i]) * p.root + p.eps);
        }
        store_up_to_8(parameter.master + at, master, own, whole);
        store_up_to_8(parameter.first + at, mean, own, whole);
        store_up_to_8(parameter.second + at, square, own, whole);
        if (!parameter.copy) continue;
        if (parameter.copy_type == STORED_F32)
            store_up_to_8(static_cast<float*>(parameter.copy) + at, master, own, whole);
        else if (parameter.copy_type == STORED_F16)
            store_up_to_8(static_cast<f16*>(parameter.copy) + at, master, own, whole);
        else
            store_up_to_8(static_cast<bf16*>(parameter.copy) + at, master, own, whole);
    }
}
KERNEL(adamw, AdamWParams, 256, step_parameters)
