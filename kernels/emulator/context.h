// The runtime's own state: fibers, warps, the worker of a host thread.
#pragma once

#include <vector>

#include "runtime.h"

namespace emulator {

constexpr unsigned WARP = 32;
constexpr unsigned MAX_THREADS = 1024;
constexpr unsigned MAX_WARPS = MAX_THREADS / WARP;
/// Who touches memory, for the race detector: warps, and behind them what works beside the warps; see async.h.
constexpr unsigned MAX_ACTORS = 64;
constexpr unsigned MAX_SHARED = 227 * 1024;
constexpr size_t STACK = 128 * 1024;

/// A cp.async on its way.
struct Copy {
    void* to;
    unsigned bytes;
    unsigned group;
    unsigned char data[16];
    Site site;
};

enum class State : unsigned char { Ready, Waiting, Ended };

/// What a switch touches comes first, in one cache line.
struct alignas(64) Fiber {
    void* stack_pointer;
    char* stack;
    Index index;
    unsigned thread, warp, lane;
    State state;
    /// what it waits for, for the message on a deadlock
    const char* waits_for;
    Site waits_at;
    unsigned group;
    std::vector<Copy> copies;
};

/// A meeting of lanes.
struct Meeting {
    unsigned mask, arrived;
    const char* name;
    Site site;
    void* arguments[WARP];
};

/// Logical time for the race detector: `now` counts this warp's releases, `seen[a]` is the last time of
/// actor a that happened before what this warp does next.
struct Warp {
    unsigned now;
    unsigned seen[MAX_ACTORS];
    /// the last time whose writes to shared memory are shown to asynchronous readers
    unsigned shown;
    unsigned lanes, ended;
    /// of all lanes, in the fast build
    Meeting whole;
    std::vector<Meeting> meetings;
};

struct Barrier {
    unsigned arrived, expected;
    unsigned warps;
    Site site;
    std::vector<Fiber*> waiting;
};

/// Bytes of memory with what is known of them; see shadow.cpp.
struct Region {
    uintptr_t base;
    size_t size;
    /// per 4 bytes: low nibble, which bytes are allocated; high nibble, which are written
    unsigned char* state;
    /// per 4 bytes: last write, last read, last read of another warp
    uint64_t (*records)[3];
};

struct Async;

struct Worker {
    Launch* launch;
    bool checked;
    bool acquired;
    bool abandoned;
    Index block;
    unsigned block_number;
    unsigned threads, warps;
    Fiber* current;
    void* scheduler;
    Fiber fibers[MAX_THREADS];
    Warp warp[MAX_WARPS];
    Barrier barriers[16];
    /// mbarriers and warpgroups; see async.h
    Async* async;
    unsigned order[MAX_THREADS];
    char* stacks;
    char* shared;
    Region shared_region;
    uintptr_t params;
    size_t params_bytes;

    Worker();
    ~Worker();
    Worker(const Worker&) = delete;
};

/// The worker of this host thread while a block runs.
extern thread_local Worker* worker;

/// Leaves the current fiber for the scheduler.
void yield(State state, const char* waits_for, Site site);

/// Checks and records `bytes` at `address`; `site` or else `from`, a code address, says where.
void touch(uintptr_t address, size_t bytes, Access access, Site site, const void* from);

/// Forgets that shared bytes were written, as an asynchronous copy into them starts.
void unwrite(uintptr_t address, size_t bytes);

/// The current thread has `actor` write shared bytes: they count as unwritten until finish_write, and then as
/// written by the actor at `time`.
void start_write(uintptr_t address, size_t bytes, unsigned actor, unsigned time, Site site);
void finish_write(uintptr_t address, size_t bytes);

/// `warp` has `actor` read shared bytes: it has the warp's knowledge, and reads at `time`.
void read_as(unsigned warp, unsigned actor, unsigned time, uintptr_t address, size_t bytes, Site site);

/// Checks that a block left nothing on its way.
void check_ended();
/// What keeps a thread from going on that waits for an mbarrier; false when none does.
bool explain_mbarrier(char* text, size_t room);
void reset_async(Worker& w);

/// True when both are one place in one file.
bool same(Site a, Site b);

/// Ends the launch with a message from outside of its threads.
void complain(Site site, const char* format, ...) __attribute__((format(printf, 2, 3)));

[[noreturn]] void fail_from(const void* from, Site site, const char* format, ...)
    __attribute__((format(printf, 3, 4)));

}  // namespace emulator
