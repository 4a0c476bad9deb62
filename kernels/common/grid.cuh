// Cooperation of blocks without a second launch: the last block to arrive sees what the others wrote.
#pragma once

#include "common/kernel.cuh"

// Called by every thread of each of `blocks` blocks after its results are written; true in the block that
// arrives last. `counter` is zero before the launch and after it. `flag` is scratch in shared memory.
__device__ __forceinline__ bool arrive_last(unsigned* counter, unsigned blocks, unsigned& flag) {
    __threadfence();
    __syncthreads();
    if (thread() == 0) {
#ifdef TASR_EMULATOR
        emulator::publish();
#endif
        flag = atomicAdd(counter, 1u) + 1 == blocks;
        if (flag) atomicExch(counter, 0u);
    }
    __syncthreads();
    bool last = flag != 0;
    if (last) {
        __threadfence();
#ifdef TASR_EMULATOR
        emulator::acquire();
#endif
    }
    return last;
}
