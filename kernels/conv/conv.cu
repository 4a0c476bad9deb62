// Convolution as an implicit matrix product on tensor cores: [images, h, w, channels] => [images, out_h, out_w,
// outputs], over a virtual concatenation, with a prologue while loading and an epilogue before storing.
//
// A block makes BM pixels (a rectangle of the result, of one or more images) of BN outputs. For 32 channels at a
// time it brings the patch of the input that its pixels see to shared memory once; the taps of the kernel read
// their operand out of the patch by shifted ldmatrix rows, each against a [BN, 32] tile of weights, which run
// through a ring. So a 3x3 kernel loads 1.4 times its input instead of 9, and normalises that often. A step is one
// tap of 32 channels.
//
// Patches are double-buffered. Plain inputs come by cp.async; sums, normed and unaligned ones through registers,
// a chunk a thread and step, loaded before the step's products and stored after them. When pixels and outputs
// make too few tiles for the GPU, the channels are split: blocks leave f32 sums, and the last of a tile adds them
// in order, so that the result does not depend on who is last.
//
// Moves at least images * h * w * channels + outputs * kernel^2 * channels + images * out_h * out_w * outputs
// elements.
#include "common/tile.cuh"
#include "conv/patch.cuh"
#include "conv/problem.cuh"
#include "conv/splits.cuh"

// A warp's [WM, WN] of one step: sum += patch rows . b^T. `place[i]` is the patch pixel of the lane's row of
// 16 rows i; patch and b [BN, 32] are swizzled as tile.cuh says.
template <typename T, typename Product>
__device__ __forceinline__ void multiply_step(Product& product, const T* patch, const T* b,
                                              const int (&place)[Product::MI], int offset) {
    constexpr int MI = Product::MI, NI = Product::NI;
    int lane = lane_index(), column = warp_index() % (Product::WARPS_ACROSS) * Product::WN;
    int rows[MI];
#pragma unroll
    for (int i = 0; i < MI; i++) rows[i] = tile_offset(place[i] + offset, lane / 16);
    int weights = tile_offset(column + lane / 16 * 8 + lane % 8, lane / 8 % 2);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        // The second half lies two chunks further, whatever the swizzle: one flipped bit.
        unsigned left[MI][4], right[NI / 2][4];
#pragma unroll
        for (int i = 0; i < MI; i++) load_matrix_x4(left[i], patch + (rows[i] ^ half * 16));
#pragma unroll
        for (int j = 0; j < NI / 2; j++) load_matrix_x4(right[j], b + (weights ^ half * 16) + j * 16 * TILE_K);
#pragma unroll
        for (int i = 0; i < MI; i++)
#pragma unroll
            for (int j = 0; j < NI; j++) {
                unsigned pair[2] = {right[j / 2][j % 2 * 2], right[j / 2][j % 2 * 2 + 1]};
                mma_m16n8k16<T>(product.sum[i][j], left[i], pair);
            }
    }
}

// Starts the copy of a [BN, 32] tile of weights; rows beyond the last become zeros.
template <typename T, int BN, int THREADS>
__device__ __forceinline__ void copy_weights(const ConvParams& p, const T* step_of_tile, int output, T* tile) {
    // 16 rows of a step lie together; the next 16 are `group` further.
    uint64_t group = uint64_t(p.blocks) * p.kernel * p.kernel * WEIGHT_ROWS * BLOCK_CHANNELS;
#pragma unroll
    for (int i = 0; i < divide_up(BN * 4, THREADS); i++) {
        int item = i * THREADS + thread(), row = item / 4, chunk = item % 4;
        if (BN * 4 % THREADS && item >= BN * 4) break;
        bool inside = output + row / WEIGHT_ROWS * WEIGHT_ROWS < p.outputs;
        const T* from = step_of_tile + row / WEIGHT_ROWS * group + row % WEIGHT_ROWS * BLOCK_CHANNELS + chunk * 8;
        copy_async_16(tile + tile_offset(row, chunk), inside ? from : step_of_tile, inside ? 16 : 0);
    }
}

// Shared memory: the table of stored pixels, the patches, the ring of weights; afterwards the sums on their way
// out. Sizes are those of src/ops/conv2d/plan.rs.
template <typename T, int BN, int STAGES>
struct ConvShared {
    int2* table;
    T* patches;
    T* ring;

    __device__ __forceinline__ ConvShared(const ConvParams& p, int slots) {
        unsigned char* start = &shared_as<unsigned char>();
        table = reinterpret_cast<int2*>(start);
        patches = reinterpret_cast<T*>(start + (p.patch_pixels * 8 + 127) / 128 * 128);
        ring = patches + slots * p.patch_pixels * BLOCK_CHANNELS;
    }
};

// FUSED: the patch comes through registers.
template <typename T, int BM, int BN, int WARPS_M, int WARPS_N, int STAGES, bool FUSED>
__device__ __forceinline__ void conv_tiles(const ConvParams& p) {
    using Product = TileProduct<T, BM, BN, WARPS_M, WARPS_N>;
    constexpr int THREADS = Product::THREADS, PATCH_STEP = THREADS / 4;
    int taps = p.kernel * p.kernel;
    int slots = FUSED || taps > 1 ? 2 : STAGES;
    ConvShared<T, BN, STAGES> shared(p, slots);
    int patch_size = p.patch_pixels * BLOCK_CHANNELS;

    TilePlace tile = find_tile<BM, BN>(p);
    for (int place = thread(); place < p.patch_pixels; place += THREADS)
        shared.table[place] = pixel_of_patch(p, tile, place);
    int rows[Product::MI];
#pragma unroll
    for (int i = 0; i < Product::MI; i++)
        rows[i] = first_of_row(p, warp_index() / WARPS_N * Product::WM + i * 16 + lane_index() % 16);
    __syncthreads();

    int first = blockIdx.y * p.split_blocks;
    int end = first + p.split_blocks < p.blocks ? first + p.split_blocks : p.blocks;
    int steps = (end - first) * taps;

    // What is loaded runs ahead of what is multiplied: (block, tap) and slots of both.
    int load_block = first, load_tap = 0, load_slot = 0, load_stage = 0;
    const T* weights = static_cast<const T*>(p.weight) + weight_place(p, tile.output, first, 0);
    auto load_step = [&]() {
        if (!FUSED && load_tap == 0) {
            copy_patch<T, THREADS>(p, shared.table, shared.patches + load_slot * patch_size, load_block);
            load_slot = load_slot + 1 == slots ? 0 : load_slot + 1;
        }
        copy_weights<T, BN, THREADS>(p, weights, tile.output, shared.ring + load_stage * BN * TILE_K);
        weights += WEIGHT_ROWS * BLOCK_CHANNELS;
        load_stage = load_stage + 1 == STAGES ? 0 : load_stage + 1;
        if (++load_tap == taps) load_tap = 0, load_block++;
    };
    for (int step = 0; step < STAGES - 1; step++) {
        if (step < steps) load_step();
        commit_async();
    }
    if constexpr (FUSED) {
        ChunkSource<T> source = find_chunk<T>(p.segments, first);
#pragma unroll 1
        for (int pixel = thread() / 4; pixel < p.patch_pixels; pixel += PATCH_STEP) {
            FusedChunk chunk;
            fetch_chunk(p, source, shared.table[pixel], chunk);
            store_chunk(p, source, shared.table[pixel], chunk, shared.patches + tile_offset(pixel, thread() % 4));
        }
    }

    Product product;
    product.clear();
    int tap = 0, dy = 0, dx = 0, slot = 0, stage = 0, block = first;
    ChunkSource<T> source = {};
    for (int step = 0; step < steps; step++) {
        wait_async<STAGES - 2>();
        // The stage loaded next is the one that every warp has finished with before this barrier.
        __syncthreads();
        if (step + STAGES - 1 < steps) load_step();
        commit_async();
        FusedChunk chunk;
        int pixel = p.patch_pixels;
        if constexpr (FUSED) {
            if (tap == 0) source = find_chunk<T>(p.segments, block + 1);
            if (block + 1 < end) pixel = thread() / 4 + tap * PATCH_STEP;
            if (pixel < p.patch_pixels) fetch_chunk(p, source, shared.table[pixel], chunk);
        }
        multiply_step<T>(product, shared.patches + slot * patch_size, shared.ring + stage * BN * TILE_K, rows,
                         offset_of_tap(p, dy, dx));
        if constexpr (FUSED) {
            T* next = shared.patches + (slot ^ 1) * patch_size;
            auto store = [&]() {
                store_chunk(p, source, shared.table[pixel], chunk, next + tile_offset(pixel, thread() % 4));
            };
            if (pixel < p.patch_pixels) store();
            // Patches with more chunks than the taps of a block have threads.
#pragma unroll 1
            for (pixel += taps * PATCH_STEP; pixel < p.patch_pixels; pixel += taps * PATCH_STEP) {
                fetch_chunk(p, source, shared.table[pixel], chunk);
                store();
            }
        }
        stage = stage + 1 == STAGES ? 0 : stage + 1;
        if (++dx == p.kernel) dx = 0, dy++;
        if (++tap == taps) {
            tap = dx = dy = 0, block++;
            slot = slot + 1 == slots ? 0 : slot + 1;
        }
    }
    wait_async<0>();
    __syncthreads();

    auto sums = [&](int i) -> float(&)[4] { return product.sum[i / Product::NI][i % Product::NI]; };
    if (p.partial && !join_splits<Product::MI * Product::NI, THREADS>(p, tile.index, sums)) return;
    product.template drain<8>(shared_as<typename Product::Staging>(), [&](int row, int column, auto& values) {
        int at = row_of_result(p, tile, row);
        if (at >= 0) finish_8<T>(p.epilogue, p.out, values, at, tile.output + column, p.outputs);
    });
}

template <typename T>
__device__ void conv_128x128(const ConvParams& p) {
    conv_tiles<T, 128, 128, 2, 2, 3, false>(p);
}
KERNEL_HALF(conv_128x128, ConvParams, 128, conv_128x128)

template <typename T>
__device__ void conv_128x64(const ConvParams& p) {
    conv_tiles<T, 128, 64, 2, 2, 4, false>(p);
}
KERNEL_HALF(conv_128x64, ConvParams, 128, conv_128x64)

template <typename T>
__device__ void conv_64x64(const ConvParams& p) {
    conv_tiles<T, 64, 64, 2, 2, 4, false>(p);
}
KERNEL_HALF(conv_64x64, ConvParams, 128, conv_64x64)

template <typename T>
__device__ void conv_128x32(const ConvParams& p) {
    conv_tiles<T, 128, 32, 4, 1, 4, false>(p);
}
KERNEL_HALF(conv_128x32, ConvParams, 128, conv_128x32)

template <typename T>
__device__ void conv_fused_128x128(const ConvParams& p) {
    conv_tiles<T, 128, 128, 2, 2, 3, true>(p);
}
KERNEL_HALF(conv_fused_128x128, ConvParams, 128, conv_fused_128x128)

template <typename T>
__device__ void conv_fused_128x64(const ConvParams& p) {
    conv_tiles<T, 128, 64, 2, 2, 4, true>(p);
}
KERNEL_HALF(conv_fused_128x64, ConvParams, 128, conv_fused_128x64)

template <typename T>
__device__ void conv_fused_64x64(const ConvParams& p) {
    conv_tiles<T, 64, 64, 2, 2, 4, true>(p);
}
KERNEL_HALF(conv_fused_64x64, ConvParams, 128, conv_fused_64x64)

template <typename T>
__device__ void conv_fused_128x16(const ConvParams& p) {
    conv_tiles<T, 128, 16, 4, 1, 4, true>(p);
}
KERNEL_HALF_RESIDENT(conv_fused_128x16, ConvParams, 128, 5, conv_fused_128x16)
