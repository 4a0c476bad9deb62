// The gradient of a convolution's weights: [outputs, channels, kernel, kernel] f32 = scale * sum over the result's
// pixels of gradient[pixel, output] * input[pixel at tap, channel], the input summed and normed as the forward did.
//
// A block makes 64 outputs x 32 channels x all taps, in registers: for 64 pixels at a time (a rectangle of the
// result) it brings their gradients and the patch of the input that they see; every tap is the product of the same
// gradients, [outputs, pixels], with shifted rows of the patch, [pixels, channels], both read transposed. So the
// gradients are read from shared memory once for nine taps. The next patch comes through registers, a chunk a
// thread before each 16 pixels' products and stored after them; gradients come by cp.async. Where that makes too few
// blocks, pixels are split; the last block of a tile adds the sums in order.
//
// 144 sums of 9 taps a thread: two blocks of 128 threads share a multiprocessor. Moves channels / 32 times the
// gradient and 1.6 * outputs / 64 times the input.
#include "common/tile.cuh"
#include "conv/patch.cuh"
#include "conv/problem.cuh"
#include "conv/splits.cuh"

constexpr int WGRAD_PIXELS = 64, WGRAD_OUTPUTS = 64, WGRAD_THREADS = 128;
constexpr int WGRAD_PLAIN_OUTPUTS = 32, WGRAD_PLAIN_THREADS = 256, WGRAD_PLAIN_ROW = 33;

struct WgradParams {
    // the forward's, with tiles of 64 pixels; out is the gradient of the weights
    ConvParams conv;
    const void* gradient;  // [images, out_h, out_w, outputs]
    float scale;
    // tiles of pixels of a split
    int split_tiles;
    // outputs are a multiple of 8, the gradient's address of 16
    unsigned aligned;
    unsigned filler;
};
static_assert(sizeof(WgradParams) == 392, "src/ops/conv2d/cuda_backward.rs mirrors this");

// Brings [64 pixels, 64 outputs] of the gradient, as two tiles of 32 outputs; zeros beyond the result.
template <typename T>
__device__ __forceinline__ void load_gradient(const WgradParams& w, const TilePlace& tile, int output, T* to) {
#pragma unroll
    for (int i = 0; i < WGRAD_PIXELS * 8 / WGRAD_THREADS; i++) {
        int item = i * WGRAD_THREADS + thread(), pixel = item / 8, chunk = item % 8;
        int row = row_of_result(w.conv, tile, pixel), first = output + chunk * 8;
        bool inside = row >= 0 && first < w.conv.outputs;
        const T* from = static_cast<const T*>(w.gradient) + (inside ? uint64_t(row) * w.conv.outputs + first : 0);
        T* place = to + chunk / 4 * (WGRAD_PIXELS * TILE_K) + tile_offset(pixel, chunk % 4);
        if (w.aligned) {
            copy_async_16(place, from, inside ? 16 : 0);
        } else {
            for (int k = 0; k < 8; k++)
                place[k] = inside && first + k < w.conv.outputs ? from[k] : from_f32<T>(0.0f);
        }
    }
}

template <typename T, int TAPS>
__device__ __forceinline__ void wgrad_tiles(const WgradParams& w) {
    const ConvParams& p = w.conv;
    constexpr int SIDE = TAPS == 9 ? 3 : 1, PATCH_STEP = WGRAD_THREADS / 4;
    T* gradients = reinterpret_cast<T*>(&shared_as<unsigned char>());
    T* patches = gradients + 2 * WGRAD_PIXELS * WGRAD_OUTPUTS;
    int patch_size = p.patch_pixels * BLOCK_CHANNELS;
    int block = blockIdx.x % p.blocks, output = blockIdx.x / p.blocks * WGRAD_OUTPUTS;
    int first = blockIdx.y * w.split_tiles;
    int end = first + w.split_tiles < p.tiles_m ? first + w.split_tiles : p.tiles_m;
    int lane = lane_index(), warp_output = warp_index() / 2 * 32, warp_chunk = warp_index() % 2 * 2;
    ChunkSource<T> source = find_chunk<T>(p.segments, block);

    auto bring = [&](const TilePlace& tile, int pixel, T* patch) {
        FusedChunk chunk;
        int2 place = pixel_of_patch(p, tile, pixel);
        fetch_chunk(p, source, place, chunk);
        store_chunk(p, source, place, chunk, patch + tile_offset(pixel, thread() % 4));
    };
    TilePlace tile = pixels_of_tile<WGRAD_PIXELS>(p, first);
    load_gradient(w, tile, output, gradients);
    commit_async();
#pragma unroll 1
    for (int pixel = thread() / 4; pixel < p.patch_pixels; pixel += PATCH_STEP) bring(tile, pixel, patches);

    float sum[TAPS][2][2][4] = {};
    int slot = 0;
#pragma unroll 1
    for (int m = first; m < end; m++, slot ^= 1) {
        wait_async<0>();
        __syncthreads();
        bool more = m + 1 < end;
        if (more) {
            tile = pixels_of_tile<WGRAD_PIXELS>(p, m + 1);
            load_gradient(w, tile, output, gradients + (slot ^ 1) * WGRAD_PIXELS * WGRAD_OUTPUTS);
        }
        commit_async();
        const T* gradient = gradients + slot * WGRAD_PIXELS * WGRAD_OUTPUTS + warp_output / 32 * (WGRAD_PIXELS * TILE_K);
        const T* patch = patches + slot * patch_size;
        T* next = patches + (slot ^ 1) * patch_size;
        int pixel = thread() / 4;
#pragma unroll 1
        for (int k = 0; k < WGRAD_PIXELS; k += 16, pixel += PATCH_STEP) {
            FusedChunk chunk;
            int2 place = {};
            bool own = more && pixel < p.patch_pixels;
            if (own) {
                place = pixel_of_patch(p, tile, pixel);
                fetch_chunk(p, source, place, chunk);
            }
            // Rows of the gradient's matrices are pixels: transposed, they are the columns of [outputs, pixels].
            unsigned left[2][4];
#pragma unroll
            for (int i = 0; i < 2; i++)
                load_matrix_x4_transposed(
                    left[i], gradient + tile_offset(k + lane / 16 * 8 + lane % 8, i * 2 + lane / 8 % 2));
            int row = first_of_row(p, k + lane / 8 % 2 * 8 + lane % 8);
#pragma unroll
            for (int tap = 0; tap < TAPS; tap++) {
                unsigned right[4];
                int at = row + offset_of_tap(p, tap / SIDE, tap % SIDE);
                load_matrix_x4_transposed(right, patch + tile_offset(at, warp_chunk + lane / 16));
#pragma unroll
                for (int i = 0; i < 2; i++)
#pragma unroll
                    for (int j = 0; j < 2; j++) {
                        unsigned pair[2] = {right[j * 2], right[j * 2 + 1]};
                        mma_m16n8k16<T>(sum[tap][i][j], left[i], pair);
                    }
            }
            if (own) store_chunk(p, source, place, chunk, next + tile_offset(pixel, thread() % 4));
        }
        // Patches of more pixels than the steps bring.
#pragma unroll 1
        for (; more && pixel < p.patch_pixels; pixel += PATCH_STEP) bring(tile, pixel, next);
    }
    __syncthreads();

    auto sums = [&](int i) -> float(&)[4] { return sum[i / 4][i / 2 % 2][i % 2]; };
    if (p.partial && !join_splits<TAPS * 4, WGRAD_THREADS>(p, blockIdx.x, sums)) return;
    int channels = p.segments.channels;
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int j = 0; j < 2; j++)
#pragma unroll
            for (int k = 0; k < 4; k++) {
                int o = output + warp_output + i * 16 + lane / 4 + k / 2 * 8;
                int c = block * BLOCK_CHANNELS + warp_chunk * 8 + j * 8 + lane % 4 * 2 + k % 2;
                if (o >= p.outputs || c >= channels) continue;
                float* to = static_cast<float*>(p.out) + (uint64_t(o) * channels + c) * TAPS;
#pragma unroll
                for (int tap = 0; tap < TAPS; tap++) to[tap] = w.scale * sum[tap][i][j][k];
            }
}

// The same in f32 with plain products: 32 outputs x 32 channels, four channels of an output a thread.
template <int TAPS>
__device__ __forceinline__ void wgrad_plain(const WgradParams& w) {
    const ConvParams& p = w.conv;
    constexpr int SIDE = TAPS == 9 ? 3 : 1;
    float* gradients = reinterpret_cast<float*>(&shared_as<unsigned char>());
    float* patch = gradients + WGRAD_PIXELS * WGRAD_PLAIN_ROW;
    int block = blockIdx.x % p.blocks, output = blockIdx.x / p.blocks * WGRAD_PLAIN_OUTPUTS;
    int line = thread() / 8, column = thread() % 8;
    float sum[TAPS][4] = {};
    for (int m = 0; m < p.tiles_m; m++) {
        TilePlace tile = pixels_of_tile<WGRAD_PIXELS>(p, m);
        __syncthreads();
        for (int item = thread(); item < WGRAD_PIXELS * WGRAD_PLAIN_OUTPUTS; item += WGRAD_PLAIN_THREADS) {
            int pixel = item / WGRAD_PLAIN_OUTPUTS, o = output + item % WGRAD_PLAIN_OUTPUTS;
            int row = row_of_result(p, tile, pixel);
            const float* from = static_cast<const float*>(w.gradient);
            gradients[pixel * WGRAD_PLAIN_ROW + item % WGRAD_PLAIN_OUTPUTS] =
                row >= 0 && o < p.outputs ? from[uint64_t(row) * p.outputs + o] : 0.0f;
        }
        for (int item = thread(); item < p.patch_pixels * 4; item += WGRAD_PLAIN_THREADS) {
            int channel = item % 4 * 8;
            gather_chunk(p, pixel_of_patch(p, tile, item / 4), block * BLOCK_CHANNELS + channel,
                         patch + item / 4 * WGRAD_PLAIN_ROW + channel);
        }
        __syncthreads();
        for (int pixel = 0; pixel < WGRAD_PIXELS; pixel++) {
            float g = gradients[pixel * WGRAD_PLAIN_ROW + line];
            int row = first_of_row(p, pixel);
#pragma unroll
            for (int tap = 0; tap < TAPS; tap++) {
                const float* from = patch + (row + offset_of_tap(p, tap / SIDE, tap % SIDE)) * WGRAD_PLAIN_ROW;
#pragma unroll
                for (int k = 0; k < 4; k++) sum[tap][k] += g * from[column + 8 * k];
            }
        }
    }
    int o = output + line, channels = p.segments.channels;
#pragma unroll
    for (int k = 0; k < 4; k++) {
        int c = block * BLOCK_CHANNELS + column + 8 * k;
        if (o >= p.outputs || c >= channels) continue;
        float* to = static_cast<float*>(p.out) + (uint64_t(o) * channels + c) * TAPS;
#pragma unroll
        for (int tap = 0; tap < TAPS; tap++) to[tap] = w.scale * sum[tap][k];
    }
}

template <typename T>
__device__ void conv_wgrad_3x3(const WgradParams& w) {
    wgrad_tiles<T, 9>(w);
}
KERNEL_HALF(conv_wgrad_3x3, WgradParams, 128, conv_wgrad_3x3)

template <typename T>
__device__ void conv_wgrad_1x1(const WgradParams& w) {
    wgrad_tiles<T, 1>(w);
}
KERNEL_HALF_RESIDENT(conv_wgrad_1x1, WgradParams, 128, 4, conv_wgrad_1x1)

template <typename T>
__device__ void wgrad_plain_3x3(const WgradParams& w) {
    wgrad_plain<9>(w);
}
KERNEL(conv_wgrad_3x3_f32, WgradParams, 256, wgrad_plain_3x3<float>)

template <typename T>
__device__ void wgrad_plain_1x1(const WgradParams& w) {
    wgrad_plain<1>(w);
}
KERNEL(conv_wgrad_1x1_f32, WgradParams, 256, wgrad_plain_1x1<float>)
