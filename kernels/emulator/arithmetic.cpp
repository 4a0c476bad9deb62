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

float half_to_float(unsigned bits) {
    // Exponent and mantissa in place, then the bias mended by a multiplication, which also makes subnormals.
    unsigned shifted = (bits & 0x7fff) << 13;
    float magnitude;
    unsigned special = (bits & 0x7c00) == 0x7c00 ? 0x70000000u : 0;
    memcpy(&magnitude, &shifted, 4);
    magnitude *= 5.192296858534828e33f;  // 2^112
    unsigned result;
    memcpy(&result, &magnitude, 4);
    if (special) result = 0x7f800000u | shifted;
    result |= (bits & 0x8000) << 16;
    memcpy(&magnitude, &result, 4);
    return magnitude;
}

float bfloat_to_float(unsigned bits) {
    unsigned wide = bits << 16;
    float value;
    memcpy(&value, &wide, 4);
    return value;
}

template <bool BF16>
void product(unsigned, void* const* arguments) {
    // Lane l holds of A [16, 16]: rows l/4 and l/4 + 8, columns 2(l%4) + {0, 1} and + 8; of B [16, 8]:
    // rows 2(l%4) + {0, 1} and + 8, column l/4; of C [16, 8]: rows l/4 and l/4 + 8, columns 2(l%4) + {0, 1}.
    float a[16][16], b[16][8], c[16][8];
    auto convert = [](unsigned bits) { return BF16 ? bfloat_to_float(bits) : half_to_float(bits); };
    for (unsigned lane = 0; lane < 32; lane++) {
        auto& mma = *static_cast<Mma*>(arguments[lane]);
        unsigned row = lane / 4, column = lane % 4 * 2;
        for (unsigned i = 0; i < 4; i++)
            for (unsigned j = 0; j < 2; j++)
                a[row + i % 2 * 8][column + i / 2 * 8 + j] = convert(mma.a[i] >> 16 * j & 0xffff);
        for (unsigned i = 0; i < 2; i++)
            for (unsigned j = 0; j < 2; j++) b[column + i * 8 + j][row] = convert(mma.b[i] >> 16 * j & 0xffff);
        for (unsigned i = 0; i < 4; i++) c[row + i / 2 * 8][column + i % 2] = mma.c[i];
    }
    for (unsigned row = 0; row < 16; row++)
        for (unsigned k = 0; k < 16; k++)
            for (unsigned column = 0; column < 8; column++) c[row][column] += a[row][k] * b[k][column];
    for (unsigned lane = 0; lane < 32; lane++) {
        auto& mma = *static_cast<Mma*>(arguments[lane]);
        unsigned row = lane / 4, column = lane % 4 * 2;
        for (unsigned i = 0; i < 4; i++) mma.c[i] = c[row + i / 2 * 8][column + i % 2];
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
            for (unsigned lane = 0; lane < 32; lane++) {
                auto& one = *static_cast<Matrices*>(arguments[lane]);
                for (unsigned m = 0; m < one.count; m++) {
                    unsigned short pair[2];
                    for (unsigned j = 0; j < 2; j++) {
                        unsigned row = one.transposed ? lane % 4 * 2 + j : lane / 4;
                        unsigned column = one.transposed ? lane / 4 : lane % 4 * 2 + j;
                        auto source = static_cast<Matrices*>(arguments[m * 8 + row])->row;
                        memcpy(&pair[j], static_cast<const char*>(source) + column * 2, 2);
                    }
                    one.registers[m] = pair[0] | unsigned(pair[1]) << 16;
                }
            }
        },
        &own, false, site);
}

}  // namespace emulator
