// mbarrier for sm_90: barriers in shared memory that count arrivals and bytes. A phase is complete when all
// arrivals and all expected bytes have come; then the next phase begins. Phases are told apart by parity.
#pragma once

#include "common/kernel.cuh"

struct Mbarrier {
    uint64_t state;
};

#ifndef TASR_EMULATOR
// An address as PTX takes it in the shared state space.
__device__ __forceinline__ unsigned shared_address(const void* shared) {
    return unsigned(__cvta_generic_to_shared(shared));
}
#endif

// Each phase takes `arrivals` arrivals. By one thread, before fence_mbarriers and a barrier of the block.
__device__ __forceinline__ void init_mbarrier(Mbarrier& barrier, unsigned arrivals, TASR_SITE) {
#ifdef TASR_EMULATOR
    emulator::mbarrier_init(&barrier, arrivals, site);
#else
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" : : "r"(shared_address(&barrier)), "r"(arrivals) : "memory");
#endif
}

// Shows this thread's new barriers to the copy engine.
__device__ __forceinline__ void fence_mbarriers() {
#ifdef TASR_EMULATOR
    emulator::mbarrier_fence();
#else
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
}

// One arrival: what this thread did before happens before what those do who wait for the phase.
__device__ __forceinline__ void arrive(Mbarrier& barrier, TASR_SITE) {
#ifdef TASR_EMULATOR
    emulator::mbarrier_arrive(&barrier, 0, site);
#else
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" : : "r"(shared_address(&barrier)) : "memory");
#endif
}

// One arrival, and `bytes` more that copies will bring in this phase.
__device__ __forceinline__ void arrive_expecting(Mbarrier& barrier, unsigned bytes, TASR_SITE) {
#ifdef TASR_EMULATOR
    emulator::mbarrier_arrive(&barrier, bytes, site);
#else
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;"
                 :
                 : "r"(shared_address(&barrier)), "r"(bytes)
                 : "memory");
#endif
}

// Waits until the phase of this parity is complete. Of a new barrier, that of parity 1 is.
__device__ __forceinline__ void wait(Mbarrier& barrier, unsigned parity, TASR_SITE) {
#ifdef TASR_EMULATOR
    emulator::mbarrier_wait(&barrier, parity, site);
#else
    asm volatile(
        "{\n"
        ".reg .pred complete;\n"
        "again:\n"
        "mbarrier.try_wait.parity.shared::cta.b64 complete, [%0], %1;\n"
        "@!complete bra again;\n"
        "}"
        :
        : "r"(shared_address(&barrier)), "r"(parity)
        : "memory");
#endif
}
