// The CUDA execution model on a host thread: what kernels (through cuda.h and common/) and the Rust driver
// call. One block runs at a time on a host thread; its threads are fibers.
#pragma once

#include <cstddef>
#include <cstdint>

namespace emulator {

struct Index {
    unsigned x, y, z;
};

/// One compiled kernel, emitted by the KERNEL macros.
struct Kernel {
    const char* name;
    void (*run)(const void* params);
    size_t params_bytes;
    unsigned max_threads;
};

/// Where in a source file something was called; __builtin_LINE keeps its meaning when code is duplicated
/// by the compiler, which a return address does not.
struct Site {
    const char* file;
    int line;
};

/// A launch, shared by all blocks of it. Mirrored in src/device/gpu/emulator.rs.
struct Launch {
    const Kernel* kernel;
    const void* params;
    unsigned grid[3];
    unsigned block[3];
    unsigned shared_bytes;
    /// order in which the threads of a block run: 0 ascending, 1 descending, 2 shuffled
    unsigned order;
    /// set by the runtime
    unsigned number;
    int failed;
    const void* failed_at;
    /// one flag a block, set when the block has published its results; see Grid in common/grid.cuh
    unsigned char* published;
    char message[768];
};

enum class Access { Read, Write, Atomic };

// --- threads -------------------------------------------------------------------------------------------

/// Constant during a kernel's run in one thread, which lets the compiler keep them.
__attribute__((const)) Index thread_index();
__attribute__((const)) Index block_index();
__attribute__((const)) Index block_size();
__attribute__((const)) Index grid_size();
/// The block's dynamic shared memory, 1024-byte aligned.
__attribute__((const)) void* shared_memory();

/// Ends the launch with a message; never returns to the kernel.
[[noreturn]] void fail(Site site, const char* format, ...) __attribute__((format(printf, 2, 3)));

// --- synchronisation -----------------------------------------------------------------------------------

/// bar.sync id, count; with count 0 every thread of the block.
void barrier(unsigned id, unsigned count, Site site);

using Execute = void (*)(unsigned mask, void* const* arguments);

/// Meets the other lanes of `mask`; the last to arrive runs `execute` on the arguments of all.
/// `name` must be the same for all. `orders` tells whether it orders memory accesses of the lanes.
void collective(unsigned mask, const char* name, Execute execute, void* argument, bool orders, Site site);

/// The block has written what other blocks may read, and: this block reads what published blocks wrote.
void publish();
void acquire();

// --- memory --------------------------------------------------------------------------------------------

/// True in the build whose every access is checked.
bool is_checked();

/// Checks an access that the compiler did not instrument.
void check(const void* address, size_t bytes, Access access, size_t alignment, Site site);

/// cp.async: `bytes` from global to shared memory, of which the first `valid` are copied and the rest are
/// zeros. They arrive with wait(): until then the destination counts as unwritten.
void copy_async(void* shared, const void* global, unsigned bytes, unsigned valid, Site site);
void copy_async_commit();
void copy_async_wait(unsigned groups_left);

}  // namespace emulator
