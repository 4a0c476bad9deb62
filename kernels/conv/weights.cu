// Layouts of a convolution's weights: as checkpoints have them, as the kernels read them, and turned around for the
// gradient of the input. A thread makes eight elements.
#include "common/vector.cuh"
#include "conv/problem.cuh"

struct WeightsParams {
    void* to;          // packed, as problem.cuh has it
    const void* from;  // pack: f32 [outputs, channels, kernel, kernel]; turn: packed, of the forward convolution
    int outputs, channels, kernel;  // of the forward convolution
    // turn: 2 when the forward doubled its input
    int zoom;
    uint64_t chunks;
};
static_assert(sizeof(WeightsParams) == 40, "src/ops/conv2d/cuda_backward.rs mirrors this");

// What eight packed elements are: rows (output), the first column (channel) and tap.
struct WeightChunk {
    int row, column, tap;
};

__device__ __forceinline__ WeightChunk find_weights(uint64_t chunk, int taps, int columns) {
    constexpr int CHUNKS = BLOCK_CHANNELS / 8;
    int place = int(chunk % CHUNKS) * 8;
    uint64_t rest = chunk / CHUNKS;
    int row = int(rest % WEIGHT_ROWS);
    rest /= WEIGHT_ROWS;
    int tap = int(rest % taps);
    rest /= taps;
    int blocks = divide_up(columns, BLOCK_CHANNELS);
    return {int(rest / blocks) * WEIGHT_ROWS + row, int(rest % blocks) * BLOCK_CHANNELS + place, tap};
}

// Moves (4 + size of T) bytes an element.
template <typename T>
__device__ void conv_pack(const WeightsParams& p) {
    uint64_t chunk = uint64_t(blockIdx.x) * blockDim.x + thread();
    if (chunk >= p.chunks) return;
    int taps = p.kernel * p.kernel;
    WeightChunk own = find_weights(chunk, taps, p.channels);
    const float* from = static_cast<const float*>(p.from) + uint64_t(own.row) * p.channels * taps + own.tap;
    float v[8];
#pragma unroll
    for (int i = 0; i < 8; i++) {
        bool inside = own.row < p.outputs && own.column + i < p.channels;
        v[i] = inside ? from[(own.column + i) * taps] : 0.0f;
    }
    store_8(static_cast<T*>(p.to) + chunk * 8, v);
}
KERNEL_ALL(conv_pack, WeightsParams, 256, conv_pack)

// The weights with which the gradient of the result is convolved to that of the input: outputs and channels change
// places, taps are turned around. When the forward doubled its input, each pixel gathers the gradients of four: a
// kernel one larger, with stride 2, whose taps are sums of the forward's. Moves 2 * size of T bytes an element.
template <typename T>
__device__ void conv_turn(const WeightsParams& p) {
    uint64_t chunk = uint64_t(blockIdx.x) * blockDim.x + thread();
    if (chunk >= p.chunks) return;
    int side = p.kernel + p.zoom - 1, blocks = divide_up(p.channels, BLOCK_CHANNELS);
    WeightChunk own = find_weights(chunk, side * side, p.outputs);
    const T* from = static_cast<const T*>(p.from);
    float v[8] = {};
    for (int ey = 0; ey < p.zoom; ey++)
        for (int ex = 0; ex < p.zoom; ex++) {
            int y = p.kernel - 1 - own.tap / side + ey, x = p.kernel - 1 - own.tap % side + ex;
            if (y < 0 || x < 0 || y >= p.kernel || x >= p.kernel || own.row >= p.channels) continue;
#pragma unroll
            for (int i = 0; i < 8; i++) {
                int output = own.column + i;
                if (output >= p.outputs) continue;
                uint64_t unit = uint64_t(output / WEIGHT_ROWS) * blocks + own.row / BLOCK_CHANNELS;
                uint64_t row = (unit * p.kernel * p.kernel + y * p.kernel + x) * WEIGHT_ROWS + output % WEIGHT_ROWS;
                v[i] += to_f32(from[row * BLOCK_CHANNELS + own.row % BLOCK_CHANNELS]);
            }
        }
    store_8(static_cast<T*>(p.to) + chunk * 8, v);
}
KERNEL_ALL(conv_turn, WeightsParams, 256, conv_turn)
