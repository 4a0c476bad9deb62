// mbarriers and TMA. A box is written as late as it may be: when somebody waits for its phase.
#include "async.h"

#include <cstdio>

#include "arithmetic.h"

namespace emulator {

namespace {

Mbarrier* find(uintptr_t address) {
    for (Mbarrier& barrier : worker->async->mbarriers)
        if (barrier.address == address) return &barrier;
    return nullptr;
}

Mbarrier& existing(void* at, Site site) {
    uintptr_t address = reinterpret_cast<uintptr_t>(at);
    check(at, 8, Access::Atomic, 8, site);
    Mbarrier* barrier = find(address);
    if (!barrier) fail(site, "mbarrier: nothing initialised it");
    Fiber& fiber = *worker->current;
    const Warp& warp = worker->warp[fiber.warp];
    unsigned initialiser = barrier->thread / WARP;
    bool known = initialiser == fiber.warp ? barrier->time < warp.now : barrier->time <= warp.seen[initialiser];
    if (fiber.thread != barrier->thread && !known)
        fail(site, "race: mbarrier: no barrier of the block between its initialisation and its use");
    return *barrier;
}

uintptr_t offset_of(uintptr_t address) { return address - worker->shared_region.base; }

/// The bytes of a row of the box that lie in the tensor: the whole row is zeros when `count` is 0.
struct Row {
    uintptr_t from;
    unsigned skip, count;
};

/// Calls act(index of the row in the box, row) for each of them.
template <typename Act>
void for_each_row(const EncodedMap& map, const int (&first)[5], Act act) {
    unsigned rows = 1;
    for (unsigned d = 1; d < map.rank; d++) rows *= map.box[d];
    for (unsigned row = 0; row < rows; row++) {
        uintptr_t from = map.base;
        bool inside = true;
        for (unsigned d = 1, rest = row; d < map.rank; rest /= map.box[d], d++) {
            int64_t at = int64_t(first[d]) + rest % map.box[d];
            inside &= at >= 0 && at < int64_t(map.dims[d]);
            from += at * map.stride[d - 1];
        }
        int64_t low = first[0] < 0 ? 0 : first[0], high = int64_t(first[0]) + map.box[0];
        if (high > int64_t(map.dims[0])) high = map.dims[0];
        unsigned count = inside && high > low ? (high - low) * map.element_bytes : 0;
        act(row, Row{from + low * map.element_bytes, unsigned(low - first[0]) * map.element_bytes, count});
    }
}

unsigned bytes_of(const EncodedMap& map) {
    unsigned bytes = map.element_bytes;
    for (unsigned d = 0; d < map.rank; d++) bytes *= map.box[d];
    return bytes;
}

void write_box(const BoxCopy& copy) {
    const EncodedMap& map = *copy.map;
    unsigned row_bytes = map.box[0] * map.element_bytes;
    for_each_row(map, copy.first, [&](unsigned row, Row part) {
        unsigned char line[256] = {};
        if (part.count) memcpy(line + part.skip, reinterpret_cast<void*>(part.from), part.count);
        for (unsigned at = 0; at < row_bytes; at += 16) {
            uintptr_t to = swizzled(offset_of(copy.to) + row * row_bytes + at, map.swizzle);
            memcpy(worker->shared + to, line + at, 16);
        }
    });
    if (worker->checked) finish_write(copy.to, bytes_of(map));
}

bool is_complete(const Mbarrier& barrier) { return barrier.left == 0 && barrier.coming == barrier.expected; }

void complete(Mbarrier& barrier) {
    for (const BoxCopy& copy : barrier.copies) write_box(copy);
    barrier.copies.clear();
    barrier.phase++;
    barrier.left = barrier.arrivals;
    barrier.expected = barrier.coming = 0;
    if (barrier.actor) barrier.gathered[barrier.actor] = barrier.phase;
    memcpy(barrier.known, barrier.gathered, sizeof(barrier.known));
    for (Fiber* fiber : barrier.waiting) fiber->state = State::Ready;
    barrier.waiting.clear();
}

/// A phase that copies belong to is completed by who looks; others at once.
void settle(Mbarrier& barrier, bool looks, Site site) {
    if (barrier.left == 0 && barrier.coming > barrier.expected)
        fail(site, "mbarrier: copies bring %llu bytes, %llu are expected", (unsigned long long)barrier.coming,
             (unsigned long long)barrier.expected);
    if (is_complete(barrier) && (looks || barrier.copies.empty() || !barrier.waiting.empty())) complete(barrier);
}

void gather(Mbarrier& barrier) {
    Fiber& fiber = *worker->current;
    Warp& warp = worker->warp[fiber.warp];
    for (unsigned i = 0; i < MAX_ACTORS; i++)
        if (warp.seen[i] > barrier.gathered[i]) barrier.gathered[i] = warp.seen[i];
    if (warp.now > barrier.gathered[fiber.warp]) barrier.gathered[fiber.warp] = warp.now;
    warp.now++;
}

}  // namespace

void mbarrier_init(void* at, unsigned arrivals, Site site) {
    uintptr_t address = reinterpret_cast<uintptr_t>(at);
    if (offset_of(address) >= MAX_SHARED) fail(site, "mbarrier: it is not in shared memory");
    if (arrivals == 0 || arrivals >= 1u << 20) fail(site, "mbarrier: %u arrivals", arrivals);
    check(at, 8, Access::Write, 8, site);
    if (find(address)) fail(site, "mbarrier: it is initialised a second time");
    memset(at, 0, 8);
    Mbarrier barrier{};
    barrier.address = address;
    barrier.arrivals = barrier.left = arrivals;
    barrier.thread = worker->current->thread;
    barrier.time = worker->warp[worker->current->warp].now;
    barrier.site = site;
    worker->async->mbarriers.push_back(barrier);
}

void mbarrier_fence() {
    for (Mbarrier& barrier : worker->async->mbarriers) barrier.fenced = true;
}

void mbarrier_arrive(void* at, unsigned bytes, Site site) {
    Mbarrier& barrier = existing(at, site);
    settle(barrier, true, site);
    if (barrier.left == 0)
        fail(site, "mbarrier: an arrival more than the %u of a phase that waits for %llu bytes", barrier.arrivals,
             (unsigned long long)(barrier.expected - barrier.coming));
    barrier.expected += bytes;
    barrier.left--;
    gather(barrier);
    settle(barrier, false, site);
}

void mbarrier_wait(void* at, unsigned parity, Site site) {
    Warp& warp = worker->warp[worker->current->warp];
    Mbarrier* barrier = &existing(at, site);
    settle(*barrier, true, site);
    while ((barrier->phase & 1) == (parity & 1)) {
        barrier->waiting.push_back(worker->current);
        yield(State::Waiting, "mbarrier", site);
        // Others may have initialised more barriers meanwhile.
        barrier = find(reinterpret_cast<uintptr_t>(at));
    }
    for (unsigned i = 0; i < MAX_ACTORS; i++)
        if (barrier->known[i] > warp.seen[i]) warp.seen[i] = barrier->known[i];
}

void copy_box(void* shared, const void* map, void* at, const int* first, unsigned rank, Site site) {
    Worker& w = *worker;
    auto encoded = static_cast<const EncodedMap*>(map);
    uintptr_t params = reinterpret_cast<uintptr_t>(map) - w.params;
    if (params > w.params_bytes - sizeof(EncodedMap)) fail(site, "TMA: the tensor map is not in the params");
    if (params % 64 || encoded->mark != ENCODED_MARK) fail(site, "TMA: that is no tensor map");
    if (encoded->rank != rank) fail(site, "TMA: %u coordinates for a tensor of rank %u", rank, encoded->rank);
    BoxCopy copy{encoded, reinterpret_cast<uintptr_t>(shared), {}};
    if (offset_of(copy.to) >= MAX_SHARED) fail(site, "TMA: the destination is not shared memory");
    if (offset_of(copy.to) % 128) fail(site, "misaligned: TMA writes to an address that is no multiple of 128");
    memcpy(copy.first, first, rank * sizeof(int));
    Mbarrier& barrier = existing(at, site);
    if (!barrier.fenced) fail(site, "mbarrier: it counts bytes, and no fence followed its initialisation");
    settle(barrier, true, site);
    if (!barrier.actor) {
        if (w.async->copiers == FIRST_READER - FIRST_COPIER)
            fail(site, "the emulator follows the copies of %u mbarriers only", FIRST_READER - FIRST_COPIER);
        barrier.actor = FIRST_COPIER + w.async->copiers++;
    }
    if (w.checked) {
        for_each_row(*encoded, copy.first, [&](unsigned, Row row) {
            if (row.count) touch(row.from, row.count, Access::Read, site, nullptr);
        });
        start_write(copy.to, bytes_of(*encoded), barrier.actor, barrier.phase + 1, site);
    }
    barrier.coming += bytes_of(*encoded);
    barrier.copies.push_back(copy);
    settle(barrier, false, site);
}

unsigned shared_offset(const void* shared) { return offset_of(reinterpret_cast<uintptr_t>(shared)); }

void fence_async() {
    Warp& warp = worker->warp[worker->current->warp];
    warp.shown = warp.now;
}

bool explain_mbarrier(char* text, size_t room) {
    for (const Mbarrier& barrier : worker->async->mbarriers) {
        if (barrier.waiting.empty()) continue;
        snprintf(text, room,
                 "mbarrier at offset %u of shared memory: its phase is never complete, with %u arrivals of %u and "
                 "%llu bytes of %llu",
                 unsigned(offset_of(barrier.address)), barrier.arrivals - barrier.left, barrier.arrivals,
                 (unsigned long long)barrier.coming, (unsigned long long)barrier.expected);
        return true;
    }
    return false;
}

void check_ended() {
    for (const Mbarrier& barrier : worker->async->mbarriers)
        if (!barrier.copies.empty())
            return complain(barrier.site, "the block ends while copies for an mbarrier are on their way");
    for (const Warpgroup& group : worker->async->groups)
        if (!group.products.empty())
            return complain(group.site, "the block ends while wgmma products are on their way");
}

void reset_async(Worker& w) {
    w.async->mbarriers.clear();
    w.async->copiers = 0;
    for (Warpgroup& group : w.async->groups) {
        group.arrived = group.committed = 0;
        group.fenced = false;
        group.products.clear();
    }
}

}  // namespace emulator
