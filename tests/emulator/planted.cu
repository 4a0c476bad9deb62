// One planted bug a kernel: what the emulator's detectors must catch. Each kernel has a `bug` switch; with it
// off the same code is right, and must pass.
#include "common/async_copy.cuh"
#include "common/grid.cuh"
#include "common/kernel.cuh"
#include "common/mma.cuh"
#include "common/reduce.cuh"
#include "common/vector.cuh"

struct PlantedParams {
    float* out;
    const float* in;
    unsigned* counter;
    unsigned count;
    unsigned bug;
};
static_assert(sizeof(PlantedParams) == 32, "tests/kernels/detectors.rs mirrors this");

struct PlantedShared {
    float values[256];
    float spare[64];
    unsigned flag;
};

// Every thread reads its right neighbour through shared memory. bug 1: no barrier between. bug 2: the barrier
// is skipped by half of the block. bug 3: a thread leaves before the barrier. bug 4: two barriers instead of
// one. bug 5: no barrier before shared memory is written again.
__device__ void neighbour(const PlantedParams& p) {
    auto& shared = shared_as<PlantedShared>();
    unsigned i = thread();
    if (p.bug == 3 && i == 5) return;
    for (int round = 0; round < 2; round++) {
        shared.values[i] = p.in[i] + float(round);
        if (p.bug == 2) {
            if (i < blockDim.x / 2) __syncthreads();
        } else if (p.bug == 4) {
            if (i % 2)
                __syncthreads();
            else
                __syncthreads();
        } else if (p.bug != 1) {
            __syncthreads();
        }
        p.out[i] = shared.values[(i + 1) % blockDim.x];
        if (p.bug != 5) __syncthreads();
    }
}
KERNEL(planted_neighbour, PlantedParams, 256, neighbour)

// A barrier that half of the block never reaches, and nothing else. bug 1.
__device__ void half_barrier(const PlantedParams& p) {
    unsigned i = thread();
    if (p.bug != 1 || i < blockDim.x / 2) __syncthreads();
    p.out[i] = p.in[i];
}
KERNEL(planted_half_barrier, PlantedParams, 256, half_barrier)

// A neighbour within a warp. bug 1: no __syncwarp. bug 2: a lane does not take part in a shuffle.
__device__ void within_warp(const PlantedParams& p) {
    auto& shared = shared_as<PlantedShared>();
    unsigned i = thread();
    shared.values[i] = p.in[i];
    if (p.bug != 1) __syncwarp();
    float value = shared.values[i ^ 1];
    if (p.bug == 2 && i == 3) {
        p.out[i] = value;
        return;
    }
    p.out[i] = value + __shfl_xor_sync(ALL_LANES, value, 1) - value;
}
KERNEL(planted_within_warp, PlantedParams, 32, within_warp)

// out = in. bug 1: reads one element too many. bug 2: writes one too many. bug 3: leaves the last element of
// out unwritten. bug 4: reads far outside. bug 5: reads 16 bytes from an address that is no multiple of 16.
__device__ void copy(const PlantedParams& p) {
    unsigned i = blockIdx.x * blockDim.x + thread();
    unsigned last = p.bug == 3 ? p.count - 1 : p.count;
    if (p.bug == 5) {
        p.out[0] = __uint_as_float(load_16_bytes(p.in + 1).x);
        return;
    }
    if (i < last) p.out[i] = p.in[i];
    if (p.bug == 1 && i == 0) p.out[0] = p.in[p.count];
    if (p.bug == 2 && i == 0) p.out[p.count] = 1.0f;
    if (p.bug == 4 && i == 0) p.out[0] = p.in[uint64_t(1) << 40];
}
KERNEL(planted_copy, PlantedParams, 256, copy)

// Shared memory. bug 1: reads what nothing wrote. bug 2: reads beyond the end. bug 3: writes beyond the end.
__device__ void shared_memory(const PlantedParams& p) {
    auto& shared = shared_as<PlantedShared>();
    unsigned i = thread();
    shared.values[i] = p.in[i];
    __syncthreads();
    p.out[i] = p.bug == 1 ? shared.spare[i % 64] : shared.values[i];
    if (p.bug == 2 && i == 0) p.out[i] = (&shared + 1)->values[0];
    if (p.bug == 3 && i == 0) (&shared + 1)->values[0] = 1.0f;
}
KERNEL(planted_shared_memory, PlantedParams, 256, shared_memory)

// Blocks. bug 1: all write one element. bug 2: a block reads what another wrote. bug 3: the last block reads
// what the others wrote, with nothing that says that they have. bugs 4, 5: two blocks wait a while for
// each other, so that where host threads allow it they access one element at the same moment; both write, or
// one reads. Else: the sum over the blocks.
__device__ void blocks(const PlantedParams& p) {
    auto& shared = shared_as<PlantedShared>();
    unsigned block = blockIdx.x;
    if (thread() == 0) p.out[1 + block] = p.in[block];
    if (p.bug == 1 && thread() == 0) p.out[0] = float(block);
    if (p.bug == 4 || p.bug == 5) {
        atomicAdd(p.counter, 1u);
        for (int i = 0; i < 10000 && atomicAdd(p.counter, 0u) < gridDim.x; i++) {
        }
        if (p.bug == 4 || block == 0)
            p.out[0] = float(block);
        else
            p.out[8] = p.out[0];
        return;
    }
    if (p.bug == 2 && thread() == 0 && block == gridDim.x - 1) p.out[0] = p.out[1];
    bool last;
    if (p.bug == 3)
        last = block == gridDim.x - 1;
    else
        last = arrive_last(p.counter, gridDim.x, shared.flag);
    if (last && thread() == 0 && p.bug != 1) {
        float sum = 0.0f;
        for (unsigned i = 0; i < gridDim.x; i++) sum += p.out[1 + i];
        p.out[0] = sum;
    }
}
KERNEL(planted_blocks, PlantedParams, 256, blocks)

// in through shared memory by cp.async. bug 1: no wait. bug 2: waits for one group too few. bug 3: no barrier
// behind the wait. bug 4: the copy overwrites what a thread still reads. bug 5: a misaligned copy.
__device__ void asynchronous(const PlantedParams& p) {
    auto& shared = shared_as<PlantedShared>();
    unsigned i = thread();
    if (i < 32) copy_async_16(shared.values + i * 4 + (p.bug == 5), p.in + i * 4);
    commit_async();
    if (i < 32) copy_async_16(shared.values + 128 + i * 4, p.in + 128 + i * 4);
    commit_async();
    if (p.bug == 2)
        wait_async<1>();
    else if (p.bug != 1)
        wait_async<0>();
    if (p.bug != 3) __syncthreads();
    p.out[i] = shared.values[(i + 64) % 256];
    if (p.bug == 4 && i < 32) copy_async_16(shared.values + i * 4, p.in + i * 4);
}
KERNEL(planted_asynchronous, PlantedParams, 256, asynchronous)

// A product of ones, 16 x 16 x 8. bug 1: half of the warp does not take part. bug 2: one operand is not
// written. bug 3: a row of ldmatrix is misaligned.
__device__ void tensor_cores(const PlantedParams& p) {
    auto& shared = shared_as<PlantedShared>();
    auto* halves = reinterpret_cast<unsigned*>(shared.values);
    unsigned i = thread();
    for (unsigned at = i; at < (p.bug == 2 ? 120u : 128u); at += 32) halves[at] = pack_pair<f16>(1.0f, 1.0f);
    __syncwarp();
    if (p.bug == 1 && i >= 16) return;
    unsigned a[4];
    load_matrix_x4(a, reinterpret_cast<char*>(halves) + i * 16 + (p.bug == 3 && i == 7 ? 4 : 0));
    unsigned b[2] = {a[0], a[1]};
    float c[4] = {};
    mma_m16n8k16<f16>(c, a, b);
    p.out[i] = c[0] + c[1] + c[2] + c[3];
}
KERNEL(planted_tensor_cores, PlantedParams, 32, tensor_cores)

// A sum over the block. bug 1: lane 0 adds without an atomic. Else with one.
__device__ void atomics(const PlantedParams& p) {
    unsigned i = thread();
    if (p.bug == 1)
        p.out[0] = p.out[0] + p.in[i];
    else
        atomicAdd(p.out, p.in[i]);
}
KERNEL(planted_atomics, PlantedParams, 256, atomics)
