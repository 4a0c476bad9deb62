// What the convolution kernels share: the problem, the block's place in it, and the patch of the input that a
// block's outputs see. Mirrored by ConvParams in src/ops/conv2d/cuda.rs.
#pragma once

#include "common/async_copy.cuh"
#include "common/epilogue.cuh"
#include "common/kernel.cuh"
#include "common/segments.cuh"

// Input channels of one step; a tap's weights are padded to whole blocks of them.
constexpr int BLOCK_CHANNELS = 32;
// Rows of weights that lie together.
constexpr int WEIGHT_ROWS = 16;

// The convolved ("virtual") image is the stored one, or twice its size: every pixel doubled (upsampling), or
// zeros between the pixels (`spread`: the gradient of stride 2).
struct ConvParams {
    void* out;
    // [outputs / 16, blocks, kernel * kernel, 16, 32], zeros where outputs or channels end
    const void* weight;
    // [images, 2, channels]: a, then b of the prologue activation(a x + b); or absent
    const float* coefficients;
    // sums of every split of every tile, and a zeroed counter a tile; absent when there is one split
    float* partial;
    unsigned* counters;
    // stored image
    int images, h, w;
    int out_h, out_w;
    int outputs;
    // channel blocks of all, and of one split
    int blocks, split_blocks;
    int kernel, stride, pad;
    int shift;
    int spread;
    // a tile is [images, 2^tile_h, 2^tile_w] pixels of the result
    int tile_w, tile_h;
    int tiles_x, tiles_y, tiles_m, tiles_n;
    // the virtual pixels that a tile sees, [images, patch_h, patch_w]; padded to an even number
    int patch_w, patch_h, patch_pixels;
    // with stride 2, even columns of a patch row come first, odd ones from here on
    int odd;
    unsigned activation;
    float slope;
    unsigned filler;
    Segments segments;
    Epilogue epilogue;
};
static_assert(sizeof(ConvParams) == 368, "src/ops/conv2d/cuda.rs mirrors this");

// Where a block's tile lies.
struct TilePlace {
    int image, y, x;  // of its first pixel
    int output;       // its first output
    int index;        // of all tiles
};

// The pixels of tile m of them.
template <int BM>
__device__ __forceinline__ TilePlace pixels_of_tile(const ConvParams& p, int m) {
    int x = m % p.tiles_x, rest = m / p.tiles_x;
    int y = rest % p.tiles_y, images = BM >> (p.tile_w + p.tile_h);
    return {rest / p.tiles_y * images, y << p.tile_h, x << p.tile_w, 0, m};
}

// Blocks go down GROUP tiles of pixels before they go to the next outputs, so that those that run together
// share both operands in L2.
template <int BM, int BN>
__device__ __forceinline__ TilePlace find_tile(const ConvParams& p) {
    constexpr int GROUP = 8;
    int block = blockIdx.x, per_group = GROUP * p.tiles_n;
    int group = block / per_group, within = block % per_group;
    int height = p.tiles_m - group * GROUP < GROUP ? p.tiles_m - group * GROUP : GROUP;
    TilePlace tile = pixels_of_tile<BM>(p, group * GROUP + within % height);
    tile.output = within / height * BN, tile.index = block;
    return tile;
}

// A tile's row of pixels in the result; negative beyond it.
__device__ __forceinline__ int row_of_result(const ConvParams& p, const TilePlace& tile, int row) {
    int x = tile.x + (row & ((1 << p.tile_w) - 1)), y = tile.y + (row >> p.tile_w & ((1 << p.tile_h) - 1));
    int image = tile.image + (row >> (p.tile_w + p.tile_h));
    return image < p.images && y < p.out_h && x < p.out_w ? (image * p.out_h + y) * p.out_w + x : -1;
}

// The place in the patch of what the first tap of a tile's row reads.
__device__ __forceinline__ int first_of_row(const ConvParams& p, int row) {
    // With stride 2 neighbouring outputs read neighbouring even columns, which lie side by side.
    int x = row & ((1 << p.tile_w) - 1), y = row >> p.tile_w & ((1 << p.tile_h) - 1);
    int image = row >> (p.tile_w + p.tile_h);
    return (image * p.patch_h + y * p.stride) * p.patch_w + x;
}

// How far the place of a tap lies behind that of the first.
__device__ __forceinline__ int offset_of_tap(const ConvParams& p, int dy, int dx) {
    return dy * p.patch_w + (p.stride == 1 ? dx : dx / 2 + dx % 2 * p.odd);
}

// The stored pixel that a place of the patch shows, x, and its image, y; x is negative for zeros.
__device__ __forceinline__ int2 pixel_of_patch(const ConvParams& p, const TilePlace& tile, int place) {
    int row = place / p.patch_w, column = place % p.patch_w;
    int image = tile.image + row / p.patch_h;
    if (p.stride == 2) column = column < p.odd ? 2 * column : 2 * (column - p.odd) + 1;
    int y = tile.y * p.stride - p.pad + row % p.patch_h, x = tile.x * p.stride - p.pad + column;
    int source_y = y >> p.shift, source_x = x >> p.shift;
    bool inside = image < p.images && y >= 0 && x >= 0 && source_y < p.h && source_x < p.w;
    if (p.spread && ((x | y) & 1)) inside = false;
    return make_int2(inside ? (image * p.h + source_y) * p.w + source_x : -1, image < p.images ? image : 0);
}

// The first of 32 weights of (output, block, tap).
__device__ __forceinline__ uint64_t weight_place(const ConvParams& p, int output, int block, int tap) {
    int taps = p.kernel * p.kernel;
    uint64_t unit = uint64_t(output / WEIGHT_ROWS) * p.blocks + block;
    return ((unit * taps + tap) * WEIGHT_ROWS + output % WEIGHT_ROWS) * BLOCK_CHANNELS;
}
