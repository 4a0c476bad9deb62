// Convolution in f32, for checking: the problem, patch and order of steps of conv.cu, with plain products.
#include "conv/patch.cuh"
#include "conv/problem.cuh"

constexpr int PLAIN_TILE = 64, PLAIN_THREADS = 256;
// A pixel's or an output's 32 channels; one float of padding puts neighbours in different banks.
constexpr int PLAIN_ROW = BLOCK_CHANNELS + 1;
constexpr int PLAIN_STAGING_ROW = PLAIN_TILE + 4;

// 64 pixels x 64 outputs by 256 threads, 4 x 4 sums each.
template <typename T>
__device__ void conv_plain(const ConvParams& p) {
    unsigned char* start = &shared_as<unsigned char>();
    int2* table = reinterpret_cast<int2*>(start);
    float* weights = reinterpret_cast<float*>(start + (p.patch_pixels * 8 + 127) / 128 * 128);
    float* patch = weights + PLAIN_TILE * PLAIN_ROW;
    float(*staging)[PLAIN_STAGING_ROW] = reinterpret_cast<float(*)[PLAIN_STAGING_ROW]>(start);

    TilePlace tile = find_tile<PLAIN_TILE, PLAIN_TILE>(p);
    for (int place = thread(); place < p.patch_pixels; place += PLAIN_THREADS)
        table[place] = pixel_of_patch(p, tile, place);
    int row = thread() / 16 * 4, column = thread() % 16, rows[4];
#pragma unroll
    for (int i = 0; i < 4; i++) rows[i] = first_of_row(p, row + i);
    float sum[4][4] = {};
    for (int block = 0; block < p.blocks; block++) {
        __syncthreads();
        for (int item = thread(); item < p.patch_pixels * 4; item += PLAIN_THREADS) {
            int channel = item % 4 * 8;
            gather_chunk(p, table[item / 4], block * BLOCK_CHANNELS + channel, patch + item / 4 * PLAIN_ROW + channel);
        }
        for (int tap = 0; tap < p.kernel * p.kernel; tap++) {
            if (tap) __syncthreads();
            for (int item = thread(); item < PLAIN_TILE * BLOCK_CHANNELS; item += PLAIN_THREADS) {
                int line = item / BLOCK_CHANNELS, channel = item % BLOCK_CHANNELS, output = tile.output + line;
                const float* from = static_cast<const float*>(p.weight);
                weights[line * PLAIN_ROW + channel] =
                    output < p.outputs ? from[weight_place(p, output, block, tap) + channel] : 0.0f;
            }
            __syncthreads();
            int offset = offset_of_tap(p, tap / p.kernel, tap % p.kernel);
            for (int channel = 0; channel < BLOCK_CHANNELS; channel++)
#pragma unroll
                for (int i = 0; i < 4; i++)
#pragma unroll
                    for (int j = 0; j < 4; j++)
                        sum[i][j] += patch[(rows[i] + offset) * PLAIN_ROW + channel] *
                                     weights[(column + 16 * j) * PLAIN_ROW + channel];
        }
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) staging[row + i][column + 16 * j] = sum[i][j];
    __syncthreads();
    for (int item = thread(); item < PLAIN_TILE * PLAIN_TILE / 8; item += PLAIN_THREADS) {
        int line = item / (PLAIN_TILE / 8), first = item % (PLAIN_TILE / 8) * 8;
        float v[8];
#pragma unroll
        for (int i = 0; i < 8; i++) v[i] = staging[line][first + i];
        int at = row_of_result(p, tile, line);
        if (at >= 0) finish_8<float>(p.epilogue, p.out, v, at, tile.output + first, p.outputs);
    }
}
KERNEL(conv_64x64_f32, ConvParams, 256, conv_plain<float>)
