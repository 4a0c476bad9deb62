// Sums that several blocks share: each leaves its own, the last to come adds all in order.
#pragma once

#include "common/grid.cuh"
#include "conv/problem.cuh"

// Adds the PARTS x 4 sums a thread of all gridDim.y splits of tile `tile` once the last of them is there; true in the
// block that then has them. `sums(i)` is part i. Shared memory is used for a flag: call behind a barrier.
template <int PARTS, int THREADS, typename Sums>
__device__ __forceinline__ bool join_splits(const ConvParams& p, int tile, Sums sums) {
    auto part = [&](int split, int index) {
        uint64_t place = (uint64_t(tile) * gridDim.y + split) * PARTS + index;
        return p.partial + (place * THREADS + thread()) * 4;
    };
#pragma unroll
    for (int i = 0; i < PARTS; i++) {
        const float(&own)[4] = sums(i);
        store_16_bytes(part(blockIdx.y, i), make_uint4(__float_as_uint(own[0]), __float_as_uint(own[1]),
                                                       __float_as_uint(own[2]), __float_as_uint(own[3])));
    }
    if (!arrive_last(p.counters + tile, gridDim.y, shared_as<unsigned>())) return false;
#pragma unroll
    for (int i = 0; i < PARTS; i++)
#pragma unroll
        for (int k = 0; k < 4; k++) sums(i)[k] = 0.0f;
    for (int split = 0; split < int(gridDim.y); split++)
#pragma unroll
        for (int i = 0; i < PARTS; i++) {
            uint4 one = load_16_bytes(part(split, i));
            float(&sum)[4] = sums(i);
            sum[0] += __uint_as_float(one.x), sum[1] += __uint_as_float(one.y);
            sum[2] += __uint_as_float(one.z), sum[3] += __uint_as_float(one.w);
        }
    __syncthreads();
    return true;
}
