// wgmma: products of a warpgroup that read shared memory and write sums beside what its warps do.
#include "async.h"

#include <algorithm>

#include "arithmetic.h"

namespace emulator {

namespace {

/// Meets the other threads of the warpgroup; the last to arrive runs `execute`.
void meet(const char* name, void (*execute)(Warpgroup& group, unsigned first_warp), void* argument, Site site) {
    Worker& w = *worker;
    Fiber& self = *w.current;
    unsigned number = self.thread / WARPGROUP, first = number * WARPGROUP;
    if (first + WARPGROUP > w.threads) fail(site, "%s: thread %u is in no whole warpgroup", name, self.thread);
    for (unsigned i = 0; i < WARPGROUP / WARP; i++)
        if (w.warp[first / WARP + i].ended)
            fail(site, "%s: threads of warp %u have ended without it", name, first / WARP + i);
    Warpgroup& group = w.async->groups[number];
    if (group.arrived == 0) {
        group.name = name;
        group.site = site;
    } else if (group.name != name || !same(group.site, site)) {
        fail(site, "divergent warpgroup: %s here, %s at %s:%d", name, group.name, group.site.file, group.site.line);
    }
    group.arguments[self.thread - first] = argument;
    if (++group.arrived < WARPGROUP) {
        yield(State::Waiting, name, site);
        return;
    }
    group.arrived = 0;
    execute(group, first / WARP);
    for (unsigned i = 0; i < WARPGROUP; i++) w.fibers[first + i].state = State::Ready;
}

float half_value(const char* at, bool bf16) {
    unsigned short bits;
    memcpy(&bits, at, 2);
    if (!bf16) return f16_to_f32(bits);
    unsigned wide = unsigned(bits) << 16;
    float value;
    memcpy(&value, &wide, 4);
    return value;
}

/// A tile as its descriptor tells: 16 columns of rows in groups of eight.
struct Tile {
    unsigned start, group_bytes, row_bytes;

    Tile(uint64_t descriptor, Site site) {
        static const unsigned ROW_BYTES[4] = {0, 128, 64, 32};
        start = (descriptor & 0x3fff) << 4;
        group_bytes = (descriptor >> 32 & 0x3fff) << 4;
        row_bytes = ROW_BYTES[descriptor >> 62];
        if (!row_bytes) fail(site, "wgmma: the emulator has no tiles without swizzle");
        if (descriptor >> 49 & 7) fail(site, "wgmma: the emulator has no tiles with a base offset");
    }

    /// The offset in shared memory of eight columns of a row.
    unsigned place(unsigned row, unsigned chunk) const {
        return swizzled(start + row / 8 * group_bytes + row % 8 * row_bytes + chunk * 16, row_bytes);
    }

    /// The first `chunks` times eight columns of a row; they belong to `warp`, which reads them until its group
    /// is done.
    void read(unsigned row, unsigned chunks, unsigned warp, unsigned time, bool bf16, float* to, unsigned stride,
              Site site) const {
        for (unsigned chunk = 0; chunk < chunks; chunk++) {
            unsigned at = place(row, chunk);
            uintptr_t address = worker->shared_region.base + at;
            if (at + 16 > worker->launch->shared_bytes)
                fail(site, "out of bounds: wgmma reads shared memory at offset %u", at);
            if (worker->checked) read_as(warp, FIRST_READER + warp, time, address, 16, site);
            for (unsigned i = 0; i < 8; i++)
                to[(chunk * 8 + i) * stride] = half_value(worker->shared + at + i * 2, bf16);
        }
    }
};

struct Issue {
    float* sum;
    unsigned count;
    uint64_t a, b;
    /// in place of the tile `a`, with rows of `b` as they lie
    const unsigned* registers;
    bool keep, bf16;
    Site site;
};

/// Register i of thread t: its row and column of the sums.
unsigned row_of(unsigned t, unsigned i) { return t / 32 * 16 + t % 32 / 4 + i / 2 % 2 * 8; }
unsigned column_of(unsigned t, unsigned i) { return i / 4 * 8 + t % 4 * 2 + i % 2; }

/// The product whose sums these are, which now belong to the tensor cores.
Product& product_of(Warpgroup& group, unsigned n) {
    auto issue = [&](unsigned t) { return static_cast<Issue*>(group.arguments[t]); };
    for (Product& product : group.products)
        if (product.to[0] == issue(0)->sum && product.count == issue(0)->count) return product;
    Product product{group.committed, issue(0)->count, {}, std::vector<float>(64 * n)};
    for (unsigned t = 0; t < WARPGROUP; t++) {
        product.to[t] = issue(t)->sum;
        for (unsigned i = 0; i < product.count; i++) {
            product.sums[row_of(t, i) * n + column_of(t, i)] = product.to[t][i];
            // Who looks before the end sees that.
            product.to[t][i] = NAN;
        }
    }
    group.products.push_back(product);
    return group.products.back();
}

void execute(Warpgroup& group, unsigned first_warp) {
    const Issue& own = *static_cast<Issue*>(group.arguments[0]);
    for (unsigned t = 1; t < WARPGROUP; t++) {
        const Issue& other = *static_cast<Issue*>(group.arguments[t]);
        if (other.a != own.a || other.b != own.b || other.keep != own.keep)
            fail(own.site, "wgmma: threads of the warpgroup give different tiles");
    }
    if (!group.fenced) fail(own.site, "wgmma: no fence since the sums were touched");
    if (FIRST_READER + first_warp + 4 > MAX_ACTORS) fail(own.site, "the emulator follows wgmma of 16 warps only");
    unsigned n = own.count * 2, time = group.committed + 1;
    static thread_local float a[64 * 16], b[16 * 256];
    // Every warp reads the whole of b: an eighth row each stands for it.
    Tile right(own.b, own.site);
    if (own.registers) {
        for (unsigned t = 0; t < WARPGROUP; t++) {
            const unsigned* registers = static_cast<Issue*>(group.arguments[t])->registers;
            for (unsigned i = 0; i < 8; i++) {
                unsigned row = t / 32 * 16 + t % 32 / 4 + i / 2 % 2 * 8, column = t % 4 * 2 + i % 2 + i / 4 * 8;
                auto half = reinterpret_cast<const char*>(registers) + i * 2;
                a[row * 16 + column] = half_value(half, own.bf16);
            }
        }
        for (unsigned row = 0; row < 16; row++)
            right.read(row, n / 8, first_warp + row % 4, time, own.bf16, b + row * n, 1, own.site);
    } else {
        Tile left(own.a, own.site);
        for (unsigned row = 0; row < 64; row++)
            left.read(row, 2, first_warp + row / 16, time, own.bf16, a + row * 16, 1, own.site);
        for (unsigned row = 0; row < n; row++)
            right.read(row, 2, first_warp + row / 8 % 4, time, own.bf16, b + row, n, own.site);
    }
    Product& product = product_of(group, n);
    product.group = group.committed;
    if (!own.keep) std::fill(product.sums.begin(), product.sums.end(), 0.0f);
    for (unsigned row = 0; row < 64; row++) {
        float* sums = product.sums.data() + row * n;
        for (unsigned k = 0; k < 16; k++)
            for (unsigned column = 0; column < n; column++) sums[column] += a[row * 16 + k] * b[k * n + column];
    }
}

}  // namespace

void wgmma_fence(Site site) {
    meet("wgmma.fence", [](Warpgroup& group, unsigned) { group.fenced = true; }, nullptr, site);
}

void wgmma(float* sum, unsigned count, uint64_t a, uint64_t b, bool keep, bool bf16, Site site) {
    Issue issue{sum, count, a, b, nullptr, keep, bf16, site};
    meet("wgmma", execute, &issue, site);
}

void wgmma_rows(float* sum, const unsigned* a, uint64_t b, bool keep, bool bf16, Site site) {
    Issue issue{sum, 32, 0, b, a, keep, bf16, site};
    meet("wgmma", execute, &issue, site);
}

void wgmma_commit(Site site) {
    meet("wgmma.commit_group", [](Warpgroup& group, unsigned) { group.committed++; }, nullptr, site);
}

void wgmma_wait(unsigned groups_left, Site site) {
    meet(
        "wgmma.wait_group",
        [](Warpgroup& group, unsigned first_warp) {
            unsigned left = *static_cast<unsigned*>(group.arguments[0]);
            unsigned done = group.committed > left ? group.committed - left : 0;
            for (unsigned i = 0; i < WARPGROUP / WARP; i++)
                worker->warp[first_warp + i].seen[FIRST_READER + first_warp + i] = done;
            size_t kept = 0;
            for (size_t p = 0; p < group.products.size(); p++) {
                Product& product = group.products[p];
                if (product.group >= done) {
                    if (kept != p) group.products[kept] = product;
                    kept++;
                    continue;
                }
                for (unsigned t = 0; t < WARPGROUP; t++)
                    for (unsigned i = 0; i < product.count; i++)
                        product.to[t][i] = product.sums[row_of(t, i) * product.count * 2 + column_of(t, i)];
                group.fenced = false;
            }
            group.products.resize(kept);
        },
        &groups_left, site);
}

}  // namespace emulator
