// cp.async: copies from global to shared memory that run beside arithmetic. What they write may be read by
// the copying thread after wait_async, by the others after a barrier behind it.
#pragma once

#include "common/kernel.cuh"

// 16 bytes, of which the first `valid` (0 or 16 for a row that is or is not there) are read and the rest
// become zeros. Both addresses are multiples of 16.
__device__ __forceinline__ void copy_async_16(void* shared, const void* global, unsigned valid = 16, TASR_SITE) {
#ifdef TASR_EMULATOR
    emulator::copy_async(shared, global, 16, valid, site);
#else
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;"
                 :
                 : "r"(unsigned(__cvta_generic_to_shared(shared))), "l"(global), "r"(valid)
                 : "memory");
#endif
}

// The same for 4 bytes, with both addresses multiples of 4.
__device__ __forceinline__ void copy_async_4(void* shared, const void* global, unsigned valid = 4, TASR_SITE) {
#ifdef TASR_EMULATOR
    emulator::copy_async(shared, global, 4, valid, site);
#else
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;"
                 :
                 : "r"(unsigned(__cvta_generic_to_shared(shared))), "l"(global), "r"(valid)
                 : "memory");
#endif
}

// Ends a group of copies.
__device__ __forceinline__ void commit_async() {
#ifdef TASR_EMULATOR
    emulator::copy_async_commit();
#else
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until at most `GROUPS` of this thread's latest groups are on their way.
template <int GROUPS>
__device__ __forceinline__ void wait_async() {
#ifdef TASR_EMULATOR
    emulator::copy_async_wait(GROUPS);
#else
    asm volatile("cp.async.wait_group %0;" : : "n"(GROUPS) : "memory");
#endif
}
