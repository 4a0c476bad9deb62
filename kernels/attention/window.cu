// Attention within the windows of an image (Swin), of up to 64 pixels and heads of up to 64 channels.
//
// qkv [n, h, w, 3 * heads * width], bias [(2 side - 1)^2, heads] f32 => out [n, h, w, heads * width].
// A block of 128 threads is one head of one window, 35,840 bytes of shared memory: keys and values lie there in f32, a
// warp takes query after query, a lane two keys of it and then two channels of the result. Moves 4 * width elements a
// pixel and head.
#include "common/kernel.cuh"
#include "common/reduce.cuh"

constexpr int WINDOW_PIXELS = 64, WINDOW_WIDTH = 64, WINDOW_WARPS = 4;
// An odd row keeps lanes that read a column in different banks.
constexpr int WINDOW_ROW = WINDOW_WIDTH + 1;
// Keys that a lane scores.
constexpr int WINDOW_KEYS = WINDOW_PIXELS / 32;
// Below every score, and finite, as the mask is.
constexpr float WINDOW_LOWEST = -3.0e38f, WINDOW_APART = -100.0f;

struct WindowAttentionParams {
    void* out;
    const void* qkv;
    const float* bias;
    unsigned height, width;
    unsigned side, shift;
    unsigned heads, channels;  // of a head
    float scale;               // of the scores
    unsigned pad;
};
static_assert(sizeof(WindowAttentionParams) == 56, "src/ops/window_attention/cuda.rs mirrors this");

struct WindowShared {
    float keys[WINDOW_PIXELS * WINDOW_ROW];
    float values[WINDOW_PIXELS * WINDOW_ROW];
    float query[WINDOW_WARPS][WINDOW_WIDTH];
    float weights[WINDOW_WARPS][WINDOW_PIXELS];
    unsigned place[WINDOW_PIXELS];  // of each pixel of the window in [n, h, w]
    unsigned part[WINDOW_PIXELS];   // of the rolled image that it is in
};
static_assert(sizeof(WindowShared) == 35840, "src/ops/window_attention/plan.rs knows this");

// Which part of the rolled image a row or column is in: the roll joined what lies behind the first to its start.
__device__ __forceinline__ unsigned window_part(unsigned at, unsigned size, unsigned side, unsigned shift) {
    if (shift == 0 || at < size - side) return 0;
    return at < size - shift ? 1 : 2;
}

// Finds pixel `i` of the block's window in the rolled image, and where the roll took it from.
__device__ __forceinline__ void find_pixel(const WindowAttentionParams& p, WindowShared& shared, unsigned i) {
    unsigned columns = p.width / p.side, rows = p.height / p.side;
    unsigned image = blockIdx.x / (rows * columns);
    unsigned y = blockIdx.x / columns % rows * p.side + i / p.side, x = blockIdx.x % columns * p.side + i % p.side;
    shared.place[i] = (image * p.height + (y + p.shift) % p.height) * p.width + (x + p.shift) % p.width;
    shared.part[i] = 3 * window_part(y, p.height, p.side, p.shift) + window_part(x, p.width, p.side, p.shift);
}

template <typename T>
__device__ void window_attention(const WindowAttentionParams& p) {
    auto& shared = shared_as<WindowShared>();
    unsigned count = p.side * p.side, head = blockIdx.y, warp = warp_index(), lane = lane_index();
    uint64_t all = uint64_t(p.heads) * p.channels;
    const T* qkv = static_cast<const T*>(p.qkv) + head * p.channels;
    if (thread() < count) find_pixel(p, shared, thread());
    __syncthreads();
    for (unsigned i = thread(); i < count * p.channels; i += blockDim.x) {
        unsigned pixel = i / p.channels, channel = i % p.channels;
        const T* from = qkv + shared.place[pixel] * 3 * all + channel;
        shared.keys[pixel * WINDOW_ROW + channel] = to_f32(from[all]);
        shared.values[pixel * WINDOW_ROW + channel] = to_f32(from[2 * all]);
    }
    __syncthreads();
    for (unsigned query = warp; query < count; query += WINDOW_WARPS) {
        const T* from = qkv + shared.place[query] * 3 * all;
        for (unsigned channel = lane; channel < p.channels; channel += 32)
            shared.query[warp][channel] = to_f32(from[channel]);
        __syncwarp();
        float score[WINDOW_KEYS], top = WINDOW_LOWEST, total = 0.0f;
#pragma unroll
        for (int i = 0; i < WINDOW_KEYS; i++) {
            unsigned key = lane + i * 32;
            score[i] = WINDOW_LOWEST;
            if (key >= count) continue;
            float sum = 0.0f;
            for (unsigned channel = 0; channel < p.channels; channel++)
                sum += shared.query[warp][channel] * shared.keys[key * WINDOW_ROW + channel];
            unsigned dy = query / p.side + p.side - 1 - key / p.side, dx = query % p.side + p.side - 1 - key % p.side;
            score[i] = sum * p.scale + p.bias[(dy * (2 * p.side - 1) + dx) * p.heads + head];
            // What the roll joined is no neighbour.
            if (shared.part[key] != shared.part[query]) score[i] += WINDOW_APART;
            top = fmaxf(top, score[i]);
        }
        top = warp_max(top);
#pragma unroll
        for (int i = 0; i < WINDOW_KEYS; i++) {
            unsigned key = lane + i * 32;
            if (key >= count) continue;
            float weight = expf(score[i] - top);
            shared.weights[warp][key] = weight;
            total += weight;
        }
        total = warp_sum(total);
        __syncwarp();
        T* out = static_cast<T*>(p.out) + shared.place[query] * all + head * p.channels;
        for (unsigned channel = lane; channel < p.channels; channel += 32) {
            float sum = 0.0f;
            for (unsigned key = 0; key < count; key++)
                sum += shared.weights[warp][key] * shared.values[key * WINDOW_ROW + channel];
            out[channel] = from_f32<T>(sum / total);
        }
        // The next query overwrites what lanes may still read.
        __syncwarp();
    }
}
KERNEL_ALL(window_attention, WindowAttentionParams, 128, window_attention)
