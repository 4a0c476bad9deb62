// A block's product of two tiles of halves in shared memory on tensor cores, for implicit and plain GEMMs.
//
// A tile is [rows, 32] halves, a row of 64 bytes in four chunks of 16. Chunk c of row r lies at place
// c ^ (r / 2 % 4), so that the eight rows that ldmatrix reads at once lie in different banks.
#pragma once

#include "common/mma.cuh"
#include "common/vector.cuh"

// Elements of k in a tile.
constexpr int TILE_K = 32;

// Offset in elements of chunk `chunk` (eight halves) of row `row`.
__device__ __forceinline__ constexpr int tile_offset(int row, int chunk) {
    return row * TILE_K + ((chunk ^ (row >> 1 & 3)) * 8);
}

// The same of a tile by k: the matrix is [32 of k, columns], and each 32 columns are a tile of their own.
__device__ __forceinline__ constexpr int offset_by_k(int k, int chunk) {
    return chunk / 4 * (TILE_K * TILE_K) + tile_offset(k, chunk % 4);
}

// Sums of a BM x BN tile, a warp (WARPS_M x WARPS_N of them) holding WM x WN.
template <typename T, int BM, int BN, int WARPS_M, int WARPS_N>
struct TileProduct {
    static constexpr int THREADS = 32 * WARPS_M * WARPS_N;
    static constexpr int WARPS_ACROSS = WARPS_N;
    static constexpr int WM = BM / WARPS_M, WN = BN / WARPS_N;
    static constexpr int MI = WM / 16, NI = WN / 8;
    static_assert(sizeof(T) == 2, "tensor cores multiply halves");
    static_assert(BM % (16 * WARPS_M) == 0, "a warp has whole 16-row products");
    static_assert(BN % (16 * WARPS_N) == 0, "ldmatrix loads columns by 16");

    // A warp's 16 rows of sums on their way to memory; 4 floats of padding put rows in different banks.
    static constexpr int STAGING_ROW = WN + 4;
    using Staging = float[WARPS_M * WARPS_N][16 * STAGING_ROW];

    float sum[MI][NI][4];

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int i = 0; i < MI; i++)
#pragma unroll
            for (int j = 0; j < NI; j++)
#pragma unroll
                for (int k = 0; k < 4; k++) sum[i][j][k] = 0.0f;
    }

    // sum += a . b^T over one tile of k: a [BM, 32], b [BN, 32].
    __device__ __forceinline__ void step(const T* a, const T* b) { step_by<false, false>(a, b); }

    // The same with operands that may lie by k.
    template <bool A_BY_K, bool B_BY_K>
    __device__ __forceinline__ void step_by(const T* a, const T* b) {
        int lane = lane_index(), row = warp_index() / WARPS_N * WM, column = warp_index() % WARPS_N * WN;
#pragma unroll
        for (int half = 0; half < TILE_K / 16; half++) {
            unsigned left[MI][4], right[NI / 2][4];
#pragma unroll
            for (int i = 0; i < MI; i++)
                if constexpr (A_BY_K)
                    load_matrix_x4_transposed(left[i], a + offset_by_k(half * 16 + lane / 16 * 8 + lane % 8,
                                                                       row / 8 + i * 2 + lane / 8 % 2));
                else
                    load_matrix_x4(left[i], a + tile_offset(row + i * 16 + lane % 16, half * 2 + lane / 16));
#pragma unroll
            for (int j = 0; j < NI / 2; j++)
                if constexpr (B_BY_K)
                    load_matrix_x4_transposed(right[j],
                                              b + offset_by_k(half * 16 + lane % 16, column / 8 + j * 2 + lane / 16));
                else
                    load_matrix_x4(right[j],
                                   b + tile_offset(column + j * 16 + lane / 16 * 8 + lane % 8, half * 2 + lane / 8 % 2));
#pragma unroll
            for (int i = 0; i < MI; i++)
#pragma unroll
                for (int j = 0; j < NI; j++) {
                    unsigned pair[2] = {right[j / 2][j % 2 * 2], right[j / 2][j % 2 * 2 + 1]};
                    mma_m16n8k16<T>(sum[i][j], left[i], pair);
                }
        }
    }

    // Hands the sums out in rows: calls write(row, column, values) for GROUP (8 or 16) consecutive columns of
    // a row of the tile. The staging memory may be that of the tiles: call behind a barrier.
    template <int GROUP, typename Write>
    __device__ __forceinline__ void drain(Staging& staging, Write write) {
        int lane = lane_index(), row = warp_index() / WARPS_N * WM, column = warp_index() % WARPS_N * WN;
        float* own = staging[warp_index()];
#pragma unroll
        for (int i = 0; i < MI; i++) {
#pragma unroll
            for (int j = 0; j < NI; j++) {
                float* at = own + lane / 4 * STAGING_ROW + j * 8 + lane % 4 * 2;
                at[0] = sum[i][j][0], at[1] = sum[i][j][1];
                at += 8 * STAGING_ROW;
                at[0] = sum[i][j][2], at[1] = sum[i][j][3];
            }
            __syncwarp();
            for (int item = lane; item < 16 * WN / GROUP; item += 32) {
                int line = item / (WN / GROUP), first = item % (WN / GROUP) * GROUP;
                float values[GROUP];
#pragma unroll
                for (int part = 0; part < GROUP; part += 8) {
                    float eight[8];
                    load_8(own + line * STAGING_ROW + first + part, eight);
#pragma unroll
                    for (int k = 0; k < 8; k++) values[part + k] = eight[k];
                }
                write(row + i * 16 + line, column + first, values);
            }
            __syncwarp();
        }
    }
};
