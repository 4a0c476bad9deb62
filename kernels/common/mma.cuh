// Tensor-core products for sm_80 and later: mma.m16n8k16 with f32 sums, and ldmatrix.
//
// Register layout, lane l: A [16, 16] rows l/4 and l/4 + 8, columns 2(l%4) + {0, 1} and + 8; B [16, 8] rows
// 2(l%4) + {0, 1} and + 8, column l/4; C [16, 8] rows l/4 and l/4 + 8, columns 2(l%4) + {0, 1}.
#pragma once

#include "common/kernel.cuh"

// c += a . b
template <typename T>
__device__ __forceinline__ void mma_m16n8k16(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2],
                                             TASR_SITE) {
#ifdef TASR_EMULATOR
    emulator::Mma mma = {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}, {c[0], c[1], c[2], c[3]}};
    if (!is_bf16<T>)
        emulator::mma_f16(mma, site);
    else
        emulator::mma_bf16(mma, site);
    for (int i = 0; i < 4; i++) c[i] = mma.c[i];
#else
    if constexpr (!is_bf16<T>)
        asm volatile(
            "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
            "{%0, %1, %2, %3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    else
        asm volatile(
            "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
            "{%0, %1, %2, %3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// Four 8x8 matrices of halves from shared memory: lane 8m + r gives the address of row r (16 bytes) of
// matrix m; register m of lane l gets row l/4, columns 2(l%4) + {0, 1}.
__device__ __forceinline__ void load_matrix_x4(unsigned (&r)[4], const void* row, TASR_SITE) {
#ifdef TASR_EMULATOR
    emulator::load_matrices(r, row, 4, false, site);
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(unsigned(__cvta_generic_to_shared(row)))
                 : "memory");
#endif
}

// The same with each matrix transposed.
__device__ __forceinline__ void load_matrix_x4_transposed(unsigned (&r)[4], const void* row, TASR_SITE) {
#ifdef TASR_EMULATOR
    emulator::load_matrices(r, row, 4, true, site);
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(unsigned(__cvta_generic_to_shared(row)))
                 : "memory");
#endif
}
