// Atomics and the tensor cores' products, compiled without instrumentation.
#include "arithmetic.h"

#include <cstring>

namespace emulator {

unsigned atomic_add(unsigned* address, unsigned value) { return __atomic_fetch_add(address, value, __ATOMIC_RELAXED); }
unsigned atomic_exchange(unsigned* address, unsigned value) {
    return __atomic_exchange_n(address, value, __ATOMIC_RELAXED);
}
unsigned atomic_compare(unsigned* address, unsigned expected, unsigned value) {
    __atomic_compare_exchange_n(address, &expected, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    return expected;
}
unsigned atomic_max(unsigned* address, unsigned value) {
    unsigned before = __atomic_load_n(address, __ATOMIC_RELAXED);
    while (before < value &&
           !__atomic_compare_exchange_n(address, &before, value, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
    return before;
}
float atomic_add(float* address, float value) {
    auto bits = reinterpret_cast<unsigned*>(address);
    unsigned before = __atomic_load_n(bits, __ATOMIC_RELAXED);
    for (;;) {
        float sum;
        memcpy(&sum, &before, 4);
        float old = sum;
        sum += value;
        unsigned after;
        memcpy(&after, &sum, 4);
        if (__atomic_compare_exchange_n(bits, &before, after, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) return old;
    }
}

namespace {

float from_bits(unsigned bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

unsigned to_bits(float value) {
    unsigned bits;
    memcpy(&bits, &value, 4);
    return bits;
}

float half_to_float(unsigned bits) {
    // Exponent and mantissa in place, then the bias mended by a multiplication, which also makes subnormals.
    unsigned shifted = (bits & 0x7fff) << 13;
    unsigned finite = to_bits(from_bits(shifted) * 5.192296858534828e33f);  // 2^112
    unsigned magnitude = (bits & 0x7c00) == 0x7c00 ? 0x7f800000u | shifted : finite;
    return from_bits(magnitude | (bits & 0x8000) << 16);
}

float bfloat_to_float(unsigned bits) { return from_bits(bits << 16); }

// Compiled for several processors, of which the best is taken when the program starts. No clone contracts products
// and sums: all give the same bits.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define TASR_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define TASR_CLONES
#endif

/// c [16, 8] += a [16, 16] . b [16, 8], one k after the other.
template <bool BF16>
__attribute__((always_inline)) inline void multiply(const unsigned short* a, const unsigned short* b, float* c) {
    float wide_a[16 * 16], wide_b[16 * 8];
    for (int i = 0; i < 16 * 16; i++) wide_a[i] = BF16 ? bfloat_to_float(a[i]) : half_to_float(a[i]);
    for (int i = 0; i < 16 * 8; i++) wide_b[i] = BF16 ? bfloat_to_float(b[i]) : half_to_float(b[i]);
    for (int row = 0; row < 16; row++) {
        float sum[8];
        for (int column = 0; column < 8; column++) sum[column] = c[row * 8 + column];
        for (int k = 0; k < 16; k++)
            for (int column = 0; column < 8; column++) sum[column] += wide_a[row * 16 + k] * wide_b[k * 8 + column];
        for (int column = 0; column < 8; column++) c[row * 8 + column] = sum[column];
    }
}

TASR_CLONES void multiply_f16(const unsigned short* a, const unsigned short* b, float* c) { multiply<false>(a, b, c); }
TASR_CLONES void multiply_bf16(const unsigned short* a, const unsigned short* b, float* c) { multiply<true>(a, b, c); }

template <bool BF16>
void product(unsigned, void* const* arguments) {
    // Lane l holds of A [16, 16]: rows l/4 and l/4 + 8, columns 2(l%4) + {0, 1} and + 8; of B [16, 8]:
    // rows 2(l%4) + {0, 1} and + 8, column l/4; of C [16, 8]: rows l/4 and l/4 + 8, columns 2(l%4) + {0, 1}.
    unsigned short a[16 * 16], b[16 * 8];
    float c[16 * 8];
    for (unsigned lane = 0; lane < 32; lane++) {
        auto& mma = *static_cast<Mma*>(arguments[lane]);
        unsigned row = lane / 4, column = lane % 4 * 2;
        for (unsigned i = 0; i < 4; i++) memcpy(&a[(row + i % 2 * 8) * 16 + column + i / 2 * 8], &mma.a[i], 4);
        for (unsigned i = 0; i < 2; i++)
            for (unsigned j = 0; j < 2; j++) b[(column + i * 8 + j) * 8 + row] = mma.b[i] >> 16 * j & 0xffff;
        for (unsigned i = 0; i < 2; i++) memcpy(&c[(row + i * 8) * 8 + column], &mma.c[2 * i], 8);
    }
    if (BF16)
        multiply_bf16(a, b, c);
    else
        multiply_f16(a, b, c);
    for (unsigned lane = 0; lane < 32; lane++) {
        auto& mma = *static_cast<Mma*>(arguments[lane]);
        unsigned row = lane / 4, column = lane % 4 * 2;
        for (unsigned i = 0; i < 2; i++) memcpy(&mma.c[2 * i], &c[(row + i * 8) * 8 + column], 8);
    }
}

}  // namespace

float f16_to_f32(unsigned short bits) { return half_to_float(bits); }

unsigned short f32_to_f16(float value) {
    unsigned bits;
    memcpy(&bits, &value, 4);
    unsigned sign = bits >> 16 & 0x8000;
    bits &= 0x7fffffff;
    if (bits > 0x7f800000) return sign | 0x7e00;
    if (bits >= 0x477ff000) return sign | 0x7c00;
    if (bits < 0x38800000) {
        // Subnormal: adding 0.5 aligns the mantissa, and the addition rounds to nearest even.
        float aligned;
        memcpy(&aligned, &bits, 4);
        aligned += 0.5f;
        memcpy(&bits, &aligned, 4);
        return sign | (bits - 0x3f000000);
    }
    bits += 0xc8000fff + (bits >> 13 & 1);
    return sign | bits >> 13;
}

void mma_f16(Mma& mma, Site site) { collective(~0u, "mma.m16n8k16", product<false>, &mma, false, site); }
void mma_bf16(Mma& mma, Site site) { collective(~0u, "mma.m16n8k16", product<true>, &mma, false, site); }

namespace {

struct Matrices {
    const void* row;
    unsigned* registers;
    unsigned count;
    bool transposed;
    Site site;
};

}  // namespace

void load_matrices(unsigned* registers, const void* row, unsigned count, bool transposed, Site site) {
    // Lanes 8m to 8m + 7 give the rows of matrix m.
    if (lane() / 8 < count) check(row, 16, Access::Read, 16, site);
    Matrices own{row, registers, count, transposed, site};
    collective(
        ~0u, transposed ? "ldmatrix.trans" : "ldmatrix",
        [](unsigned, void* const* arguments) {
            const void* rows[32];
            for (unsigned lane = 0; lane < 32; lane++) rows[lane] = static_cast<Matrices*>(arguments[lane])->row;
            for (unsigned lane = 0; lane < 32; lane++) {
                auto& one = *static_cast<Matrices*>(arguments[lane]);
                for (unsigned m = 0; m < one.count; m++) {
                    if (!one.transposed) {
                        memcpy(&one.registers[m], static_cast<const char*>(rows[m * 8 + lane / 4]) + lane % 4 * 4, 4);
                        continue;
                    }
                    unsigned short pair[2];
                    for (unsigned j = 0; j < 2; j++)
                        memcpy(&pair[j], static_cast<const char*>(rows[m * 8 + lane % 4 * 2 + j]) + lane / 4 * 2, 2);
                    one.registers[m] = pair[0] | unsigned(pair[1]) << 16;
                }
            }
        },
        &own, false, site);
}

}  // namespace emulator
