// Fibers, the scheduler of a block, barriers and warp collectives.
#include "async.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <sys/mman.h>

// Saves the callee-saved registers on the stack, stores the stack pointer to *save, continues at `load`.
extern "C" void tasr_fiber_switch(void** save, void* load);

#if defined(__x86_64__)
asm(R"(
.text
.globl tasr_fiber_switch
.type tasr_fiber_switch, @function
tasr_fiber_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size tasr_fiber_switch, .-tasr_fiber_switch
)");
#elif defined(__aarch64__)
asm(R"(
.text
.globl tasr_fiber_switch
tasr_fiber_switch:
    sub sp, sp, #160
    stp x19, x20, [sp, #0]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
)");
#else
#error "the kernel emulator switches fibers on x86-64 and aarch64 only"
#endif

namespace emulator {

thread_local Worker* worker = nullptr;

Worker::Worker() {
    stacks = static_cast<char*>(mmap(nullptr, STACK * MAX_THREADS, PROT_READ | PROT_WRITE,
                                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    shared = static_cast<char*>(aligned_alloc(1024, MAX_SHARED + 1024));
    if (stacks == MAP_FAILED || !shared) {
        fprintf(stderr, "the kernel emulator cannot get memory for its stacks\n");
        abort();
    }
    for (unsigned i = 0; i < MAX_THREADS; i++) {
        fibers[i].stack = stacks + i * STACK;
        // The lowest page of each stack catches overflow.
        mprotect(fibers[i].stack, 4096, PROT_NONE);
    }
    size_t granules = MAX_SHARED / 4;
    shared_region = {reinterpret_cast<uintptr_t>(shared), 0, static_cast<unsigned char*>(calloc(granules, 1)),
                     static_cast<uint64_t(*)[3]>(calloc(granules, sizeof(uint64_t[3])))};
    async = new Async();
}

Worker::~Worker() {
    munmap(stacks, STACK * MAX_THREADS);
    free(shared);
    free(shared_region.state);
    free(shared_region.records);
    delete async;
}

Index thread_index() { return worker->current->index; }
Index block_index() { return worker->block; }
Index block_size() {
    const unsigned* b = worker->launch->block;
    return {b[0], b[1], b[2]};
}
Index grid_size() {
    const unsigned* g = worker->launch->grid;
    return {g[0], g[1], g[2]};
}
void* shared_memory() { return worker->shared; }
bool is_checked() { return worker->checked; }

namespace {

void report(const void* from, Site site, const char* format, va_list list) {
    Worker& w = *worker;
    int before = 0;
    // Of several failing blocks the first one speaks.
    if (!__atomic_compare_exchange_n(&w.launch->failed, &before, 1, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
        return;
    char* out = w.launch->message;
    size_t room = sizeof(w.launch->message);
    auto add = [&](int written) {
        size_t used = written < 0 ? 0 : written;
        used = used < room ? used : room - 1;
        out += used;
        room -= used;
    };
    add(snprintf(out, room, "kernel %s, block (%u, %u, %u)", w.launch->kernel->name, w.block.x, w.block.y,
                 w.block.z));
    if (w.current)
        add(snprintf(out, room, ", thread (%u, %u, %u)", w.current->index.x, w.current->index.y,
                     w.current->index.z));
    add(snprintf(out, room, ": "));
    add(vsnprintf(out, room, format, list));
    if (site.file) add(snprintf(out, room, ", at %s:%d", site.file, site.line));
    w.launch->failed_at = site.file ? nullptr : from;
}

[[noreturn]] void abandon() {
    worker->abandoned = true;
    void* unused;
    tasr_fiber_switch(&unused, worker->scheduler);
    abort();
}

}  // namespace

void fail(Site site, const char* format, ...) {
    va_list list;
    va_start(list, format);
    report(nullptr, site, format, list);
    va_end(list);
    abandon();
}

void fail_from(const void* from, Site site, const char* format, ...) {
    va_list list;
    va_start(list, format);
    report(from, site, format, list);
    va_end(list);
    abandon();
}

namespace {

/// The lane after this one in its warp, if it can go on: in the fast build it takes over without the scheduler.
Fiber* next_lane(const Fiber& fiber) {
    Worker& w = *worker;
    unsigned first = fiber.warp * WARP, last = first + WARP < w.threads ? first + WARP : w.threads;
    Fiber* next = &w.fibers[fiber.thread + 1 < last ? fiber.thread + 1 : first];
    return next->state == State::Ready ? next : nullptr;
}

}  // namespace

void complain(Site site, const char* format, ...) {
    va_list list;
    va_start(list, format);
    report(nullptr, site, format, list);
    va_end(list);
}

void yield(State state, const char* waits_for, Site site) {
    Fiber& fiber = *worker->current;
    fiber.state = state;
    fiber.waits_for = waits_for;
    fiber.waits_at = site;
    if (!worker->checked && state == State::Waiting)
        if (Fiber* next = next_lane(fiber)) {
            worker->current = next;
            tasr_fiber_switch(&fiber.stack_pointer, next->stack_pointer);
            return;
        }
    tasr_fiber_switch(&fiber.stack_pointer, worker->scheduler);
}

// --- synchronisation -----------------------------------------------------------------------------------

namespace {

/// What the warps of `warps` did so far happens before what they do from now on.
void join(unsigned warps) {
    Worker& w = *worker;
    unsigned latest[MAX_ACTORS] = {};
    for (unsigned i = 0; i < w.warps; i++) {
        if (!(warps >> i & 1)) continue;
        for (unsigned j = 0; j < MAX_ACTORS; j++)
            if (w.warp[i].seen[j] > latest[j]) latest[j] = w.warp[i].seen[j];
        if (w.warp[i].now > latest[i]) latest[i] = w.warp[i].now;
    }
    for (unsigned i = 0; i < w.warps; i++) {
        if (!(warps >> i & 1)) continue;
        memcpy(w.warp[i].seen, latest, sizeof(latest));
        w.warp[i].now++;
    }
}

}  // namespace

bool same(Site a, Site b) {
    return a.line == b.line && (a.file == b.file || strcmp(a.file, b.file) == 0);
}

void barrier(unsigned id, unsigned count, Site site) {
    Worker& w = *worker;
    unsigned expected = count ? count : w.threads;
    if (id >= 16) fail(site, "barrier %u: there are 16", id);
    Barrier& b = w.barriers[id];
    if (b.arrived == 0) {
        b.expected = expected;
        b.site = site;
        b.warps = 0;
    } else if (b.expected != expected) {
        fail(site, "barrier %u is awaited for %u threads here and for %u at %s:%d", id, expected, b.expected,
             b.site.file, b.site.line);
    } else if (count == 0 && !same(b.site, site)) {
        fail(site, "divergent barrier: other threads of the block wait at %s:%d", b.site.file, b.site.line);
    }
    b.arrived++;
    b.warps |= 1u << w.current->warp;
    if (b.arrived < b.expected) {
        b.waiting.push_back(w.current);
        yield(State::Waiting, "barrier", site);
        return;
    }
    for (Fiber* fiber : b.waiting) fiber->state = State::Ready;
    b.waiting.clear();
    b.arrived = 0;
    join(b.warps);
}

void collective(unsigned mask, const char* name, Execute execute, void* argument, bool orders, Site site) {
    Worker& w = *worker;
    Fiber& self = *w.current;
    Warp& warp = w.warp[self.warp];
    unsigned bit = 1u << self.lane;
    if (!w.checked && mask == warp.lanes) {
        Meeting& whole = warp.whole;
        whole.arrived |= bit;
        whole.arguments[self.lane] = argument;
        if (whole.arrived != mask) {
            yield(State::Waiting, name, site);
            return;
        }
        if (execute) execute(mask, whole.arguments);
        whole.arrived = 0;
        unsigned first = self.warp * WARP;
        for (unsigned lane = 0; lane < WARP; lane++)
            if (mask >> lane & 1) w.fibers[first + lane].state = State::Ready;
        return;
    }
    if (!(mask & bit)) fail(site, "%s: lane %u is not in its own mask %08x", name, self.lane, mask);
    if (mask & ~warp.lanes) fail(site, "%s: mask %08x names lanes that the block does not have", name, mask);
    if (mask & warp.ended) fail(site, "%s: mask %08x names lanes that have ended", name, mask);
    Meeting* meeting = nullptr;
    for (Meeting& other : warp.meetings) {
        if (!other.arrived || !(other.mask & mask)) continue;
        if (other.mask != mask || (other.name != name && strcmp(other.name, name) != 0) || !same(other.site, site))
            fail(site, "divergent warp: %s with mask %08x here, %s with mask %08x at %s:%d", name, mask,
                 other.name, other.mask, other.site.file, other.site.line);
        meeting = &other;
    }
    for (Meeting& other : warp.meetings)
        if (!meeting && !other.arrived) {
            other = {mask, 0, name, site, {}};
            meeting = &other;
        }
    if (!meeting) {
        warp.meetings.push_back({mask, 0, name, site, {}});
        meeting = &warp.meetings.back();
    }
    meeting->arrived |= bit;
    meeting->arguments[self.lane] = argument;
    if (meeting->arrived != mask) {
        yield(State::Waiting, name, site);
        return;
    }
    if (execute) execute(mask, meeting->arguments);
    if (orders) warp.now++;
    meeting->arrived = 0;
    unsigned first = self.warp * WARP;
    for (unsigned lane = 0; lane < WARP; lane++)
        if (mask >> lane & 1) w.fibers[first + lane].state = State::Ready;
}

void publish() {
    Worker& w = *worker;
    __atomic_store_n(&w.launch->published[w.block_number], 1, __ATOMIC_RELEASE);
}

void acquire() { worker->acquired = true; }

// --- running a block -----------------------------------------------------------------------------------

namespace {

void fiber_main() {
    Worker& w = *worker;
    w.launch->kernel->run(w.launch->params);
    Warp& warp = w.warp[w.current->warp];
    warp.ended |= 1u << w.current->lane;
    yield(State::Ended, nullptr, {});
    abort();
}

void prepare(Fiber& fiber) {
    // Stacks of neighbours lie in different sets of the caches: at equal offsets they would drive each other out.
    char* top = fiber.stack + STACK - fiber.thread % 64 * 576;
#if defined(__x86_64__)
    void** frame = reinterpret_cast<void**>(top) - 8;
    memset(frame, 0, 8 * sizeof(void*));
    frame[6] = reinterpret_cast<void*>(fiber_main);
#else
    void** frame = reinterpret_cast<void**>(top) - 20;
    memset(frame, 0, 20 * sizeof(void*));
    frame[11] = reinterpret_cast<void*>(fiber_main);
#endif
    fiber.stack_pointer = frame;
    fiber.state = State::Ready;
    fiber.group = 0;
    fiber.copies.clear();
}

void deadlock() {
    Worker& w = *worker;
    Fiber *waiting = nullptr, *other = nullptr;
    for (unsigned i = 0; i < w.threads; i++) {
        Fiber& fiber = w.fibers[i];
        if (fiber.state == State::Waiting && !waiting) waiting = &fiber;
    }
    for (unsigned i = 0; i < w.threads && !other; i++) {
        Fiber& fiber = w.fibers[i];
        if (fiber.state == State::Ended || !same(fiber.waits_at, waiting->waits_at)) other = &fiber;
    }
    w.current = waiting;
    char text[256];
    if (explain_mbarrier(text, sizeof(text)))
        complain(waiting->waits_at, "%s", text);
    else if (!other)
        complain(waiting->waits_at, "divergent %s: it waits for threads that never come", waiting->waits_for);
    else if (other->state == State::Ended)
        complain(waiting->waits_at, "divergent %s: thread %u has ended without it", waiting->waits_for,
            other->thread);
    else
        complain(waiting->waits_at, "divergent %s: thread %u waits for %s at %s:%d", waiting->waits_for,
            other->thread, other->waits_for, other->waits_at.file, other->waits_at.line);
}

void set_up(Worker& w, Launch* launch, unsigned number, bool checked) {
    const unsigned *g = launch->grid, *b = launch->block;
    w.launch = launch;
    w.checked = checked;
    w.acquired = w.abandoned = false;
    w.block_number = number;
    w.block = {number % g[0], number / g[0] % g[1], number / g[0] / g[1]};
    w.threads = b[0] * b[1] * b[2];
    w.warps = (w.threads + WARP - 1) / WARP;
    w.params = reinterpret_cast<uintptr_t>(launch->params);
    w.params_bytes = launch->kernel->params_bytes;
    for (unsigned i = 0; i < w.threads; i++) {
        Fiber& fiber = w.fibers[i];
        fiber.thread = i;
        fiber.warp = i / WARP;
        fiber.lane = i % WARP;
        fiber.index = {i % b[0], i / b[0] % b[1], i / b[0] / b[1]};
        w.order[i] = launch->order == 1 ? w.threads - 1 - i : i;
        prepare(fiber);
    }
    if (launch->order == 2) {
        uint64_t random = 0x9e3779b97f4a7c15ull * (number + 1);
        for (unsigned i = w.threads - 1; i > 0; i--) {
            random = random * 6364136223846793005ull + 1442695040888963407ull;
            unsigned j = (random >> 33) % (i + 1);
            unsigned swap = w.order[i];
            w.order[i] = w.order[j];
            w.order[j] = swap;
        }
    }
    for (unsigned i = 0; i < w.warps; i++) {
        unsigned lanes = w.threads - i * WARP;
        w.warp[i].now = 1;
        memset(w.warp[i].seen, 0, sizeof(w.warp[i].seen));
        w.warp[i].shown = 0;
        w.warp[i].lanes = lanes >= WARP ? ~0u : (1u << lanes) - 1;
        w.warp[i].ended = 0;
        w.warp[i].whole.arrived = 0;
        w.warp[i].meetings.clear();
    }
    for (Barrier& barrier : w.barriers) {
        barrier.arrived = 0;
        barrier.waiting.clear();
    }
    reset_async(w);
    w.shared_region.size = launch->shared_bytes;
    // What a kernel finds in shared memory is anything: signalling bytes show where it is used.
    memset(w.shared, 0xf5, launch->shared_bytes);
    if (checked) {
        size_t granules = (launch->shared_bytes + 3) / 4;
        memset(w.shared_region.state, 0x0f, granules);
        if (unsigned rest = launch->shared_bytes % 4) w.shared_region.state[granules - 1] = (1u << rest) - 1;
        memset(w.shared_region.records, 0, granules * sizeof(uint64_t[3]));
    }
}

void run(Worker& w) {
    for (unsigned left = w.threads; left > 0;) {
        bool progress = false;
        for (unsigned i = 0; i < w.threads; i++) {
            Fiber& fiber = w.fibers[w.order[i]];
            if (fiber.state != State::Ready) continue;
            progress = true;
            w.current = &fiber;
            tasr_fiber_switch(&w.scheduler, fiber.stack_pointer);
            if (w.abandoned) return;
            // In the fast build another lane may have come back.
            if (w.current->state == State::Ended) left--;
        }
        if (!progress) return deadlock();
    }
    if (w.checked) check_ended();
}

}  // namespace

}  // namespace emulator

/// Runs block `number` of a launch on this host thread.
extern "C" void tasr_emulator_block(emulator::Launch* launch, unsigned number, int checked) {
    static thread_local std::unique_ptr<emulator::Worker> own;
    if (!own) own.reset(new emulator::Worker());
    if (__atomic_load_n(&launch->failed, __ATOMIC_RELAXED)) return;
    emulator::worker = own.get();
    emulator::set_up(*own, launch, number, checked != 0);
    emulator::run(*own);
    own->current = nullptr;
    emulator::worker = nullptr;
}
