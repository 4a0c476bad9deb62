// Convolutions of stride 1 on sm_90a as implicit products by specialised warps.
//
// input [N, H, W, C], a concatenation of stored parts, weights [O / 16, C / 32, k, k, 16, 32] => [N, H', W', O].
// Tile of 128 pixels x BN outputs by 384 threads; see common/specialised.cuh. Of each 64 channels of a part, a 1x1
// kernel takes the pixels as they are, in a row. For a 3x3 kernel the pixels are two squares of 8 x 8, one below the
// other or of two images. One box a column of the kernel has them with the rows above and below, zeros outside of the
// image; eight pixels of a row are 1024 bytes of it, so the three taps of the column start one such row further each.
// Moves input, weights and result at least.
// architectures: 90a
#include "common/epilogue.cuh"
#include "common/kernel.cuh"
#include "common/segments.cuh"
#include "common/specialised.cuh"

struct ConvSm90Params {
    TensorMap parts[MAX_SEGMENTS];  // [N, H, W, channels of the part], 64 channels a box
    TensorMap weights;              // [O / 16, C / 32, k * k, 16, 32] in boxes of [BN / 16, 1, 1, 16, 32]
    // 64 channels each of this part and those before it, and the first block of 32 channels of the part
    unsigned end[MAX_SEGMENTS], block[MAX_SEGMENTS];
    void* out;
    int pad;
    // of a box of pixels: bytes / 1024
    unsigned box_rows;
    unsigned images, out_h, out_w, outputs;
    // pixels of a tile along x and y, as powers of two; tiles along x, and of an image; tiles of pixels
    unsigned log_w, log_h, across, area, rows;
    // from which 8 pixels of a box on they are the second warpgroup's
    unsigned second;
    Split split;
    Epilogue epilogue;
};
static_assert(sizeof(ConvSm90Params) == 1344, "src/ops/conv2d/sm90.rs mirrors this");

// The first pixel of a tile. Tiles go over the pixels before they go along the outputs: those that run together
// share weights in L2.
struct Corner {
    int x, y;
    unsigned image;

    __device__ __forceinline__ Corner(const ConvSm90Params& p, unsigned tile) {
        unsigned at = tile % p.rows, place = at % p.area;
        x = place % p.across << p.log_w, y = place / p.across << p.log_h;
        image = at / p.area * (TILE_ROWS >> (p.log_w + p.log_h));
    }
};

// Finishes and writes eight outputs of pixel `row` of a tile of `width` outputs.
template <typename T>
__device__ __forceinline__ void write_sums(const ConvSm90Params& p, unsigned tile, unsigned width, unsigned row,
                                           unsigned column, float (&values)[8]) {
    Corner at(p, tile);
    unsigned x = at.x + (row & ((1u << p.log_w) - 1)), y = at.y + (row >> p.log_w & ((1u << p.log_h) - 1));
    unsigned image = at.image + (row >> (p.log_w + p.log_h));
    if (x >= p.out_w || y >= p.out_h || image >= p.images) return;
    unsigned pixel = (image * p.out_h + y) * p.out_w + x;
    finish_8<T>(p.epilogue, p.out, values, pixel, tile / p.rows * width + column, p.outputs);
}

template <typename T, int BN, int SIZE>
__device__ __forceinline__ void conv_specialised(const ConvSm90Params& p) {
    using Tiles = Specialised<T, BN, 32, SIZE>;
    auto& shared = shared_as<typename Tiles::Shared>();
    if (thread() == MULTIPLIERS) prefetch_map(p.parts[0]), prefetch_map(p.weights);
    // Step: 64 channels of a part, and a column of the kernel.
    struct Step {
        int part = 0, first, column;

        __device__ __forceinline__ Step(const ConvSm90Params& p, unsigned step) {
            unsigned chunk = step / SIZE;
            while (chunk >= p.end[part]) part++;
            first = chunk - (part ? p.end[part - 1] : 0);
            column = step % SIZE;
        }
    };
    auto load_a = [&](unsigned tile, unsigned step, auto& slot, Mbarrier& full) {
        Step own(p, step);
        Corner at(p, tile);
        copy_box(slot, p.parts[own.part], full,
                 {own.first * 64, at.x + own.column - p.pad, at.y - p.pad, int(at.image)});
    };
    auto load_b = [&](unsigned tile, unsigned step, int row, auto& slot, Mbarrier& full) {
        Step own(p, step);
        int tap = row * SIZE + own.column, block = p.block[own.part] + own.first * 2, n = tile / p.rows * (BN / 16);
        copy_box(slot, p.weights, full, {0, 0, tap, block, n});
        copy_box(slot + BN * 32, p.weights, full, {0, 0, tap, block + 1, n});
    };
    auto combine = [](unsigned, float(&)[Tiles::SUMS]) {};
    auto write = [&](unsigned tile, unsigned row, unsigned column, float(&values)[8]) {
        write_sums<T>(p, tile, BN, row, column, values);
    };
    Tiles::template run<BN>(shared, p.split, {p.box_rows * 1024, p.second * 8}, load_a, load_b, combine, write);
}

template <typename T>
__device__ void conv_3x3_128_sm90(const ConvSm90Params& p) {
    conv_specialised<T, 128, 3>(p);
}
KERNEL_HALF(conv_3x3_128_sm90, ConvSm90Params, 384, conv_3x3_128_sm90)

template <typename T>
__device__ void conv_3x3_160_sm90(const ConvSm90Params& p) {
    conv_specialised<T, 160, 3>(p);
}
KERNEL_HALF(conv_3x3_160_sm90, ConvSm90Params, 384, conv_3x3_160_sm90)

template <typename T>
__device__ void conv_3x3_256_sm90(const ConvSm90Params& p) {
    conv_specialised<T, 256, 3>(p);
}
KERNEL_HALF(conv_3x3_256_sm90, ConvSm90Params, 384, conv_3x3_256_sm90)

template <typename T>
__device__ void conv_1x1_128_sm90(const ConvSm90Params& p) {
    conv_specialised<T, 128, 1>(p);
}
KERNEL_HALF(conv_1x1_128_sm90, ConvSm90Params, 384, conv_1x1_128_sm90)

template <typename T>
__device__ void conv_1x1_160_sm90(const ConvSm90Params& p) {
    conv_specialised<T, 160, 1>(p);
}
KERNEL_HALF(conv_1x1_160_sm90, ConvSm90Params, 384, conv_1x1_160_sm90)

template <typename T>
__device__ void conv_1x1_256_sm90(const ConvSm90Params& p) {
    conv_specialised<T, 256, 1>(p);
}
KERNEL_HALF(conv_1x1_256_sm90, ConvSm90Params, 384, conv_1x1_256_sm90)

template <typename T>
__device__ void conv_join_sm90(const ConvSm90Params& p) {
    join_parts(p.split, [&](unsigned tile, unsigned row, unsigned column, float(&values)[8]) {
        write_sums<T>(p, tile, p.split.width, row, column, values);
    });
}
KERNEL_HALF(conv_join_sm90, ConvSm90Params, 128, conv_join_sm90)
