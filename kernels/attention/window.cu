// Attention within the windows of an image (Swin), of up to 64 pixels and heads of up to 64 channels.
//
// qkv [n, h, w, 3 * heads * width], bias [(2 side - 1)^2, heads] f32 => out [n, h, w, heads * width].
// A block is one head of one window: its keys and values lie in shared memory in f32, a warp takes query after query,
// a lane two keys of it and then two channels of the result. Moves 4 * width elements a pixel and head.
#include "common/kernel.cuh"
#include "common/math.cuh"
#include "common/reduce.cuh"

constexpr int WINDOW_PIXELS = 64, WINDOW_WIDTH = 64, WINDOW_WARPS = 4;
// An odd row keeps lanes that read a column in different banks.
constexpr int WINDOW_ROW = WINDOW_WIDTH + 1;

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
};
static_assert(sizeof(WindowShared) == 35328, "src/ops/window_attention/cuda.rs knows this");

// Which part of the rolled image a row or column is in: the parts behind the first were joined by the roll.
__device__ __forceinline__ unsigned window_part(unsigned at, unsigned size, unsigned side, unsigned shift) {
    if (shift == 0 || at < size - side) return 0;
    return at < size - shift ? 1 : 2;
}

struct WindowPixel {
    uint64_t place;  // in [n, h, w]
    unsigned part;
};

__device__ __forceinline__ WindowPixel window_pixel(const WindowAttentionParams& p, unsigned i) {
    unsigned columns = p.width / p.side, rows = p.height / p.side;
    unsigned image = blockIdx.x / (rows * columns);
    unsigned y = blockIdx.x / columns % rows * p.side + i / p.side, x = blockIdx.x % columns * p.side + i % p.side;
    unsigned part = 3 * window_part(y, p.height, p.side, p.shift) + window_part(x, p.width, p.side, p.shift);
    return {(uint64_t(image) * p.height + (y + p.shift) % p.height) * p.width + (x + p.shift) % p.width, part};
}

template <typename T>
__device__ void window_attention(const WindowAttentionParams& p) {
    auto& shared = shared_as<WindowShared>();
    unsigned count = p.side * p.side, head = blockIdx.y, all = p.heads * p.channels;
    unsigned warp = warp_index(), lane = lane_index();
    const T* qkv = static_cast<const T*>(p.qkv) + head * p.channels;
    for (unsigned i = thread(); i < count * p.channels; i += blockDim.x) {
        unsigned pixel = i / p.channels, channel = i % p.channels;
        const T* from = qkv + window_pixel(p, pixel).place * 3 * all + channel;
        shared.keys[pixel * WINDOW_ROW + channel] = to_f32(from[all]);
        shared.values[pixel * WINDOW_ROW + channel] = to_f32(from[2 * all]);
    }
    __syncthreads();
    for (unsigned query = warp; query < count; query += WINDOW_WARPS) {
        WindowPixel own = window_pixel(p, query);
        for (unsigned channel = lane; channel < p.channels; channel += 32)
            shared.query[warp][channel] = to_f32(qkv[own.place * 3 * all + channel]);
        __syncwarp();
        float score[2], top = -3.0e38f;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            unsigned key = lane + half * 32;
            score[half] = -3.0e38f;
            if (key >= count) continue;
            float sum = 0.0f;
            for (unsigned channel = 0; channel < p.channels; channel++)
                sum += shared.query[warp][channel] * shared.keys[key * WINDOW_ROW + channel];
            unsigned dy = query / p.side + p.side - 1 - key / p.side, dx = query % p.side + p.side - 1 - key % p.side;
            sum = sum * p.scale + p.bias[(dy * (2 * p.side - 1) + dx) * p.heads + head];
            // What the roll joined is no neighbour.
            score[half] = window_pixel(p, key).part == own.part ? sum : sum - 100.0f;
            top = fmaxf(top, score[half]);
        }
        top = warp_max(top);
        float total = 0.0f;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            unsigned key = lane + half * 32;
            if (key >= count) continue;
            float weight = expf(score[half] - top);
            shared.weights[warp][key] = weight;
            total += weight;
        }
        total = warp_sum(total);
        __syncwarp();
        T* out = static_cast<T*>(p.out) + own.place * all + head * p.channels;
        for (unsigned channel = lane; channel < p.channels; channel += 32) {
            float sum = 0.0f;
            for (unsigned key = 0; key < count; key++)
                sum += shared.weights[warp][key] * shared.values[key * WINDOW_ROW + channel];
            out[channel] = from_f32<T>(sum / total);
        }
        __syncwarp();
    }
}
KERNEL_ALL(window_attention, WindowAttentionParams, 128, window_attention)
