// What is known of every byte of device memory: allocated, written, and by whom last touched. The checked
// build of the kernels is compiled with -fsanitize=thread, which puts a call before every access; the calls
// land here instead of in a sanitizer's library.
#include "async.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <link.h>
#include <mutex>
#include <sched.h>
#include <sys/mman.h>

namespace emulator {

namespace {

// Slabs of device memory. Entries are never moved, so that readers need no lock; size 0 marks a free one.
constexpr unsigned MAX_REGIONS = 4096;
Region regions[MAX_REGIONS];
unsigned region_count = 0;
std::mutex region_lock;

/// The size is read again behind the base: another host thread may free the entry and fill it anew.
bool holds(const Region& region, uintptr_t address) {
    size_t size = __atomic_load_n(&region.size, __ATOMIC_ACQUIRE);
    uintptr_t base = __atomic_load_n(&region.base, __ATOMIC_ACQUIRE);
    return address - base < size && __atomic_load_n(&region.size, __ATOMIC_ACQUIRE) == size;
}

Region* find(uintptr_t address) {
    static thread_local Region* last = nullptr;
    if (last && holds(*last, address)) return last;
    unsigned count = __atomic_load_n(&region_count, __ATOMIC_ACQUIRE);
    for (unsigned i = 0; i < count; i++)
        if (holds(regions[i], address)) return last = &regions[i];
    return nullptr;
}

void* pages(size_t bytes) {
    void* made = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return made == MAP_FAILED ? nullptr : made;
}

/// True for constants of the program itself: tables that kernels read.
bool in_program(uintptr_t address) {
    struct Range {
        uintptr_t low, high;
    };
    auto look = [](dl_phdr_info* info, size_t, void* out) {
        Range own = {~uintptr_t(0), 0};
        for (int i = 0; i < info->dlpi_phnum; i++) {
            const auto& part = info->dlpi_phdr[i];
            if (part.p_type != PT_LOAD) continue;
            uintptr_t start = info->dlpi_addr + part.p_vaddr;
            if (start < own.low) own.low = start;
            if (start + part.p_memsz > own.high) own.high = start + part.p_memsz;
        }
        uintptr_t here = reinterpret_cast<uintptr_t>(&regions);
        if (here < own.low || here >= own.high) return 0;
        *static_cast<Range*>(out) = own;
        return 1;
    };
    static const Range range = [look] {
        Range found = {0, 0};
        dl_iterate_phdr(look, &found);
        return found;
    }();
    return address >= range.low && address < range.high;
}

/// Who accesses: a thread, or an actor beside the warps as if it were the first thread of a warp of its own,
/// with what `warp` knows of the others.
struct Who {
    unsigned thread, time, warp;
};

Who current(Worker& w) {
    Fiber& fiber = *w.current;
    return {fiber.thread, w.warp[fiber.warp].now, fiber.warp};
}

// A record of one access: launch 13, block 19, thread 11, time 16, atomic 1, byte mask 4 bits. Before launches are
// numbered from 0 again, the driver has all records forgotten.
uint64_t record_of(Worker& w, Who who, bool atomic, unsigned mask) {
    return uint64_t(w.launch->number & 0x1fff) << 51 | uint64_t(w.block_number & 0x7ffff) << 32 |
           uint64_t(who.thread) << 21 | uint64_t(who.time & 0xffff) << 5 | uint64_t(atomic) << 4 | mask;
}
unsigned thread_of(uint64_t record) { return record >> 21 & 0x7ff; }
unsigned block_of(uint64_t record) { return record >> 32 & 0x7ffff; }
bool same_block(uint64_t a, uint64_t b) { return a >> 32 == b >> 32; }
bool same_warp(uint64_t a, uint64_t b) { return a >> 26 == b >> 26; }

/// True when what `before` tells happened before what `who` does now.
bool ordered(Worker& w, uint64_t before, uint64_t now, unsigned own) {
    if (before >> 51 != now >> 51) return true;
    if (!same_block(before, now))
        return w.acquired && __atomic_load_n(&w.launch->published[block_of(before)], __ATOMIC_ACQUIRE);
    if (thread_of(before) == thread_of(now)) return true;
    unsigned other = thread_of(before) / WARP, time = before >> 5 & 0xffff;
    // Times of a block that synchronises more than 65,535 times wrap; its accesses then count as ordered.
    if (w.warp[own].now > 0xffff) return true;
    return other == own ? time < w.warp[own].now : time <= w.warp[own].seen[other];
}

/// The records of one granule, held while an access is checked and recorded. Blocks run on several host threads:
/// if two could check before either had recorded, they would miss each other. Shared memory has one host thread.
class Held {
    /// stands in for the last write while another thread holds the records; no record has all bits set
    static constexpr uint64_t TAKEN = ~uint64_t(0);
    uint64_t* slot;
    bool contended;

public:
    /// the last write, as it is left when the records are given back
    uint64_t write;

    Held(uint64_t (&records)[3], bool contended) : slot(records), contended(contended) {
        if (!contended)
            write = *slot;
        else
            while ((write = __atomic_exchange_n(slot, TAKEN, __ATOMIC_ACQUIRE)) == TAKEN) sched_yield();
    }
    ~Held() { __atomic_store_n(slot, write, __ATOMIC_RELEASE); }
    Held(const Held&) = delete;
};

/// The other thread of a race, or null.
const char* race(Worker& w, uint64_t (&records)[3], bool contended, Access access, unsigned mask, Who who,
                 uint64_t& culprit) {
    bool atomic = access == Access::Atomic;
    uint64_t now = record_of(w, who, atomic, mask);
    Held held(records, contended);
    uint64_t &write = held.write, &first = records[1], &second = records[2];
    if ((write & mask) && !(atomic && (write >> 4 & 1)) && !ordered(w, write, now, who.warp)) {
        culprit = write;
        return access == Access::Read ? "reads what another thread wrote" : "writes what another thread wrote";
    }
    if (access == Access::Read) {
        // Two readers of different warps are kept: one of them is not the next writer's warp.
        if (first && !same_warp(first, now)) second = first;
        if (first && same_warp(first, now) && ((first ^ now) & 0x1fffe0) == 0) now |= first & 15;
        first = now;
        return nullptr;
    }
    for (uint64_t read : {first, second})
        if ((read & mask) && !ordered(w, read, now, who.warp)) {
            culprit = read;
            return "writes what another thread read";
        }
    if (write && ((write ^ now) >> 4) == 0) now |= write & 15;
    write = now;
    return nullptr;
}

const char* verb(Access access) {
    return access == Access::Read ? "reads" : access == Access::Write ? "writes" : "updates";
}

/// "thread 5 of block 0", or the actor's name.
struct Name {
    char text[64];

    explicit Name(uint64_t record) {
        unsigned thread = thread_of(record);
        if (thread >= WARP * FIRST_READER)
            snprintf(text, sizeof(text), "wgmma of warp %u", thread / WARP - FIRST_READER);
        else if (thread >= WARP * FIRST_COPIER)
            snprintf(text, sizeof(text), "the copy engine");
        else
            snprintf(text, sizeof(text), "thread %u of block %u", thread, block_of(record));
    }
};

void touch_region(Region& region, const char* kind, uintptr_t address, size_t bytes, Access access, Who who,
                  Site site, const void* from) {
    Worker& w = *worker;
    size_t start = address - region.base, end = start + bytes;
    for (size_t granule = start / 4; granule * 4 < end; granule++) {
        unsigned low = granule * 4 < start ? start - granule * 4 : 0;
        unsigned high = granule * 4 + 4 > end ? end - granule * 4 : 4;
        unsigned mask = (1u << high) - (1u << low);
        unsigned state = granule * 4 < region.size ? __atomic_load_n(&region.state[granule], __ATOMIC_RELAXED) : 0;
        if ((state & mask) != mask)
            fail_from(from, site, "out of bounds: %s %zu bytes of %s memory at offset %zu", verb(access), bytes,
                      kind, start);
        if (access != Access::Write && ((state >> 4) & mask) != mask)
            fail_from(from, site, "unwritten memory: %s %zu bytes of %s memory at offset %zu that nothing wrote",
                      verb(access), bytes, kind, start);
        if (access != Access::Read && ((state >> 4) & mask) != mask)
            __atomic_fetch_or(&region.state[granule], static_cast<unsigned char>(mask << 4), __ATOMIC_RELAXED);
        uint64_t culprit = 0;
        if (const char* what = race(w, region.records[granule], &region != &w.shared_region, access, mask, who, culprit))
            fail_from(from, site, "race: %s with no barrier between (%s), %s memory at offset %zu", what,
                      Name(culprit).text, kind, start);
    }
}

}  // namespace

void touch(uintptr_t address, size_t bytes, Access access, Site site, const void* from) {
    Worker& w = *worker;
    Fiber& fiber = *w.current;
    if (address - reinterpret_cast<uintptr_t>(fiber.stack) < STACK) return;
    if (address - w.shared_region.base < MAX_SHARED)
        return touch_region(w.shared_region, "shared", address, bytes, access, current(w), site, from);
    if (Region* region = find(address))
        return touch_region(*region, "global", address, bytes, access, current(w), site, from);
    if (address >= w.params && address + bytes <= w.params + w.params_bytes && access == Access::Read) return;
    if (access == Access::Read && in_program(address)) return;
    fail_from(from, site, "out of bounds: %s %zu bytes at %#zx, which no allocation holds", verb(access), bytes,
              size_t(address));
}

void check(const void* address, size_t bytes, Access access, size_t alignment, Site site) {
    uintptr_t at = reinterpret_cast<uintptr_t>(address);
    if (at % alignment)
        fail(site, "misaligned: %s %zu bytes at an address that is no multiple of %zu", verb(access), bytes,
             alignment);
    if (worker->checked) touch(at, bytes, access, site, nullptr);
}

void unwrite(uintptr_t address, size_t bytes) {
    Region& region = worker->shared_region;
    for (size_t i = 0; i < bytes; i++) {
        size_t at = address - region.base + i;
        region.state[at / 4] &= ~(0x10u << at % 4);
    }
}

// --- for async.cpp and wgmma.cpp -----------------------------------------------------------------------

void start_write(uintptr_t address, size_t bytes, unsigned actor, unsigned time, Site site) {
    Worker& w = *worker;
    touch(address, bytes, Access::Write, site, nullptr);
    unwrite(address, bytes);
    uint64_t record = record_of(w, {actor * WARP, time, 0}, false, 15);
    size_t first = (address - w.shared_region.base) / 4;
    for (size_t granule = first; granule < first + bytes / 4; granule++) {
        uint64_t(&records)[3] = w.shared_region.records[granule];
        records[0] = record, records[1] = records[2] = 0;
    }
}

void finish_write(uintptr_t address, size_t bytes) {
    memset(worker->shared_region.state + (address - worker->shared_region.base) / 4, 0xff, bytes / 4);
}

void read_as(unsigned warp, unsigned actor, unsigned time, uintptr_t address, size_t bytes, Site site) {
    Worker& w = *worker;
    Region& shared = w.shared_region;
    touch_region(shared, "shared", address, bytes, Access::Read, {actor * WARP, time, warp}, site, nullptr);
    for (size_t granule = (address - shared.base) / 4; granule * 4 < address - shared.base + bytes; granule++) {
        uint64_t write = shared.records[granule][0];
        unsigned writer = thread_of(write) / WARP;
        if (writer < MAX_WARPS && (write >> 5 & 0xffff) > w.warp[writer].shown)
            fail(site, "race: wgmma reads what thread %u wrote and did not show it by a fence", thread_of(write));
    }
}

// --- asynchronous copies -------------------------------------------------------------------------------

void copy_async(void* shared, const void* global, unsigned bytes, unsigned valid, Site site) {
    uintptr_t to = reinterpret_cast<uintptr_t>(shared);
    Worker& w = *worker;
    if (to - w.shared_region.base >= MAX_SHARED) fail(site, "cp.async: the destination is not shared memory");
    if (to % bytes || (valid && reinterpret_cast<uintptr_t>(global) % bytes))
        fail(site, "misaligned: cp.async of %u bytes", bytes);
    if (valid > bytes) fail(site, "cp.async: %u valid bytes of %u", valid, bytes);
    if (!w.checked) {
        memcpy(shared, global, valid);
        memset(static_cast<char*>(shared) + valid, 0, bytes - valid);
        return;
    }
    if (valid) touch(reinterpret_cast<uintptr_t>(global), valid, Access::Read, site, nullptr);
    touch(to, bytes, Access::Write, site, nullptr);
    unwrite(to, bytes);
    Copy copy{shared, bytes, w.current->group, {}, site};
    memcpy(copy.data, global, valid);
    w.current->copies.push_back(copy);
}

void copy_async_commit() { worker->current->group++; }

void copy_async_wait(unsigned groups_left) {
    Fiber& fiber = *worker->current;
    size_t kept = 0;
    for (size_t i = 0; i < fiber.copies.size(); i++) {
        Copy& copy = fiber.copies[i];
        if (copy.group + groups_left >= fiber.group) {
            fiber.copies[kept++] = copy;
            continue;
        }
        touch(reinterpret_cast<uintptr_t>(copy.to), copy.bytes, Access::Write, copy.site, nullptr);
        memcpy(copy.to, copy.data, copy.bytes);
    }
    fiber.copies.resize(kept);
}

}  // namespace emulator

// --- called by the driver ------------------------------------------------------------------------------

using namespace emulator;

/// Registers a slab. Returns 0 when its shadow cannot be had.
extern "C" int tasr_emulator_add(uintptr_t base, size_t size) {
    std::lock_guard<std::mutex> guard(region_lock);
    size_t granules = size / 4;
    auto state = static_cast<unsigned char*>(pages(granules));
    auto records = static_cast<uint64_t(*)[3]>(pages(granules * sizeof(uint64_t[3])));
    if (!state || !records) return 0;
    unsigned free = 0;
    while (free < region_count && regions[free].size) free++;
    if (free == MAX_REGIONS) return 0;
    __atomic_store_n(&regions[free].base, base, __ATOMIC_RELEASE);
    regions[free].state = state;
    regions[free].records = records;
    __atomic_store_n(&regions[free].size, size, __ATOMIC_RELEASE);
    if (free == region_count) __atomic_store_n(&region_count, free + 1, __ATOMIC_RELEASE);
    return 1;
}

extern "C" void tasr_emulator_remove(uintptr_t base) {
    std::lock_guard<std::mutex> guard(region_lock);
    for (unsigned i = 0; i < region_count; i++) {
        Region& region = regions[i];
        if (!region.size || region.base != base) continue;
        size_t granules = region.size / 4;
        __atomic_store_n(&region.size, 0, __ATOMIC_RELEASE);
        munmap(region.state, granules);
        munmap(region.records, granules * sizeof(uint64_t[3]));
    }
}

/// Forgets who touched a slab, by giving the pages of its records back.
extern "C" void tasr_emulator_forget(uintptr_t base) {
    if (Region* region = find(base)) madvise(region->records, region->size / 4 * sizeof(uint64_t[3]), MADV_DONTNEED);
}

/// Sets every byte of a span to allocated or not, written or not; spans start at multiples of 4.
extern "C" void tasr_emulator_mark(uintptr_t address, size_t bytes, int allocated, int written) {
    Region* region = find(address);
    if (!region || !bytes) return;
    unsigned char state = (allocated ? 0x0f : 0) | (written ? 0xf0 : 0);
    size_t start = address - region->base, end = start + bytes;
    for (size_t at = start; at < end; at++) {
        if (at % 4 == 0 && end - at >= 4) {
            size_t whole = (end - at) / 4;
            memset(region->state + at / 4, state, whole);
            at += whole * 4 - 1;
            continue;
        }
        unsigned char bit = 0x11 << at % 4;
        region->state[at / 4] = (region->state[at / 4] & ~bit) | (state & bit);
    }
}

/// The offset of the first byte of a span that nothing wrote, or -1.
extern "C" ptrdiff_t tasr_emulator_unwritten(uintptr_t address, size_t bytes) {
    Region* region = find(address);
    if (!region) return 0;
    for (size_t i = 0; i < bytes; i++) {
        size_t at = address - region->base + i;
        if (!(region->state[at / 4] >> (4 + at % 4) & 1)) return i;
    }
    return -1;
}

// --- called by the instrumented kernels ----------------------------------------------------------------

#define FROM __builtin_return_address(0)
#define TOUCH(NAME, BYTES, ACCESS) \
    extern "C" void NAME(void* at) { touch(reinterpret_cast<uintptr_t>(at), BYTES, ACCESS, {}, FROM); }

TOUCH(__tsan_read1, 1, Access::Read)
TOUCH(__tsan_read2, 2, Access::Read)
TOUCH(__tsan_read4, 4, Access::Read)
TOUCH(__tsan_read8, 8, Access::Read)
TOUCH(__tsan_read16, 16, Access::Read)
TOUCH(__tsan_write1, 1, Access::Write)
TOUCH(__tsan_write2, 2, Access::Write)
TOUCH(__tsan_write4, 4, Access::Write)
TOUCH(__tsan_write8, 8, Access::Write)
TOUCH(__tsan_write16, 16, Access::Write)
TOUCH(__tsan_unaligned_read2, 2, Access::Read)
TOUCH(__tsan_unaligned_read4, 4, Access::Read)
TOUCH(__tsan_unaligned_read8, 8, Access::Read)
TOUCH(__tsan_unaligned_read16, 16, Access::Read)
TOUCH(__tsan_unaligned_write2, 2, Access::Write)
TOUCH(__tsan_unaligned_write4, 4, Access::Write)
TOUCH(__tsan_unaligned_write8, 8, Access::Write)
TOUCH(__tsan_unaligned_write16, 16, Access::Write)

extern "C" void __tsan_read_range(void* at, size_t bytes) {
    touch(reinterpret_cast<uintptr_t>(at), bytes, Access::Read, {}, FROM);
}
extern "C" void __tsan_write_range(void* at, size_t bytes) {
    touch(reinterpret_cast<uintptr_t>(at), bytes, Access::Write, {}, FROM);
}
extern "C" void __tsan_init() {}
extern "C" void __tsan_func_entry(void*) {}
extern "C" void __tsan_func_exit() {}
