// Whether values are finite, noted on the device: sampling goes on and asks at its end.
#include "common/kernel.cuh"
#include "common/vector.cuh"

// --- find_non_finite: *found = 1 if any of `count` values is infinite or NaN ----------------------------
// [count] => one f32 that was 0; 256 threads, 8 elements each; moves count elements

struct FiniteParams {
    // f32: 1 is written as its bits
    unsigned* found;
    const void* in;
    uint64_t count;
    // the address is a multiple of 16
    unsigned aligned;
    unsigned pad;
};
static_assert(sizeof(FiniteParams) == 32, "src/ops/finite/cuda.rs mirrors this");

template <typename T>
__device__ void find_non_finite(const FiniteParams& p) {
    uint64_t first = (uint64_t(blockIdx.x) * blockDim.x + thread()) * 8;
    if (first >= p.count) return;
    const T* at = static_cast<const T*>(p.in) + first;
    float x[8];
    if (p.aligned && p.count - first >= 8)
        load_8(at, x);
    else
        load_some(at, x, p.count - first < 8 ? int(p.count - first) : 8);
    bool finite = true;
#pragma unroll
    // An infinity or NaN has all bits of the exponent set.
    for (int i = 0; i < 8; i++) finite = finite && (__float_as_uint(x[i]) & 0x7f800000u) != 0x7f800000u;
    if (!finite) atomicExch(p.found, __float_as_uint(1.0f));
}
KERNEL_ALL(find_non_finite, FiniteParams, 256, find_non_finite)
