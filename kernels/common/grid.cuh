// Cooperation of blocks without a second launch: the last block to arrive sees what the others wrote.
#pragma once

#include "common/kernel.cuh"

// Called by every thread of each of `blocks` blocks, or by those of each that `sync` synchronises, thread 0
// among them, after their results are written; true in the block that arrives last. `counter` is zero before
// the launch and after it. `flag` is scratch in shared memory.
template <typename Sync>
__device__ __forceinline__ bool arrive_last(unsigned* counter, unsigned blocks, unsigned& flag, Sync sync) {
    __threadfence();
    sync();
    if (thread() == 0) {
#ifdef TASR_EMULATOR
        emulator::publish();
#endif
        flag = atomicAdd(counter, 1u) + 1 == blocks;
        if (flag) atomicExch(counter, 0u);
    }
    sync();
    bool last = flag != 0;
    if (last) {
        __threadfence();
#ifdef TASR_EMULATOR
        emulator::acquire();
#endif
    }
    return last;
}

__device__ __forceinline__ bool arrive_last(unsigned* counter, unsigned blocks, unsigned& flag) {
    return arrive_last(counter, blocks, flag, [] { __syncthreads(); });
}
