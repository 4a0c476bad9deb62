// The end of a timestep-aware adapter in one kernel: 3x3 convolution to one channel, sigmoid, and
// out = base + map * residual. features [images, h, w, channels], base and residual [images, h, w, d] =>
// [images, h, w, d] and the map, f32 [images, h, w].
//
// A block takes 8 x 8 pixels. One output would leave a tensor-core product nearly empty, so the nine taps are its
// columns: every pixel of the 10 x 10 patch is read and normed once and multiplied with all taps, [112, channels] .
// [channels, 9]; then a pixel's logit is the sum of nine neighbours' products. A lane's operands are 16 bytes of a
// pixel's channels as they come from memory, and 16 of a tap's weights: the order of channels within a product is
// free, so nothing passes through shared memory. Two halves of the warps share the channels. Blocks of gridDim.y
// share the d channels of a tile and repeat its convolution, where there are few pixels.
//
// Moves 1.6 * pixels * channels * gridDim.y + 3 * pixels * d elements. 64 registers a thread or fewer: two blocks share a multiprocessor.
#include "common/mma.cuh"
#include "common/reduce.cuh"
#include "conv/patch.cuh"

constexpr int GATE_SIDE = 8, GATE_PATCH = GATE_SIDE + 2, GATE_THREADS = 512;
constexpr int GATE_PIXELS = GATE_SIDE * GATE_SIDE;
// Warps of a half, 16 pixels of the patch each.
constexpr int GATE_WARPS = 8;
constexpr int TAPS = 9;

struct GateParams {
    void* out;
    float* map;
    const void* base;
    const void* residual;
    const void* weight;         // as problem.cuh has it
    const float* bias;          // [1]
    const float* coefficients;  // as problem.cuh has it
    int images, h, w;
    int d;
    // channels of d that a block takes, a multiple of 8
    int slice;
    int blocks;
    int tiles_x, tiles_y;
    unsigned activation;
    float slope;
    // the map is top * sigmoid
    float top;
    // rows of base, residual and out are multiples of 16 bytes
    unsigned aligned;
    Segments segments;
};
static_assert(sizeof(GateParams) == 280, "src/ops/adapter_gate/cuda.rs mirrors this");

struct GateShared {
    // products of every pixel of the patch with every tap, of both halves of the channels
    float products[2][GATE_WARPS * 16][TAPS];
    float map[GATE_PIXELS];
};
static_assert(sizeof(GateShared) == 9472, "src/ops/adapter_gate/plan.rs knows this");

// The stored pixel, x, and the image, y, of a place of the patch; x is negative outside.
__device__ __forceinline__ int2 pixel_of_place(const GateParams& p, int image, int y0, int x0, int place) {
    int y = y0 - 1 + place / GATE_PATCH, x = x0 - 1 + place % GATE_PATCH;
    bool inside = place < GATE_PATCH * GATE_PATCH && y >= 0 && x >= 0 && y < p.h && x < p.w;
    return make_int2(inside ? (image * p.h + y) * p.w + x : -1, image);
}

// One channel, summed and normed; zero outside.
template <typename T>
__device__ __forceinline__ float normed_element(const GateParams& p, int2 place, unsigned channel) {
    if (place.x < 0 || channel >= p.segments.channels) return 0.0f;
    float x = segment_element<T>(p.segments, uint64_t(unsigned(place.x)), channel);
    if (!p.coefficients) return x;
    const float* a = p.coefficients + uint64_t(2 * place.y) * p.segments.channels + channel;
    return activate(x * a[0] + a[p.segments.channels], p.activation, p.slope);
}

// Eight channels likewise, packed.
template <typename T>
__device__ __forceinline__ uint4 normed_chunk(const GateParams& p, const ChunkSource<T>& source, int2 place) {
    float v[8] = {};
    if (!p.segments.aligned) {
#pragma unroll
        for (int i = 0; i < 8; i++) v[i] = normed_element<T>(p, place, source.channel + i);
    } else if (place.x >= 0 && source.from) {
        uint64_t at = uint64_t(unsigned(place.x)) * source.width;
        load_8(source.from + at, v);
        if (source.plus) {
            float plus[8];
            load_8(source.plus + at, plus);
#pragma unroll
            for (int i = 0; i < 8; i++) v[i] += plus[i];
        }
        if (p.coefficients) {
            float a[8], b[8];
            uint64_t row = uint64_t(2 * place.y) * p.segments.channels + source.channel;
            load_8(p.coefficients + row, a);
            load_8(p.coefficients + row + p.segments.channels, b);
#pragma unroll
            for (int i = 0; i < 8; i++) v[i] = v[i] * a[i] + b[i];
            activate_all(v, p.activation, p.slope);
        }
    }
    return make_uint4(pack_pair<T>(v[0], v[1]), pack_pair<T>(v[2], v[3]), pack_pair<T>(v[4], v[5]),
                      pack_pair<T>(v[6], v[7]));
}

// The first of 32 weights of a tap of channel block `block`.
template <typename T>
__device__ __forceinline__ const T* tap_weights(const GateParams& p, int block, int tap) {
    return static_cast<const T*>(p.weight) + uint64_t(block * TAPS + tap) * WEIGHT_ROWS * BLOCK_CHANNELS;
}

// The products of a warp's 16 pixels with all taps, over every second block of channels.
template <typename T>
__device__ __forceinline__ void multiply_taps(const GateParams& p, int image, int y0, int x0, int half, int first,
                                              float (*products)[TAPS]) {
    int lane = lane_index();
    if constexpr (sizeof(T) == 2) {
        int row = lane / 4;
        int2 upper = pixel_of_place(p, image, y0, x0, first + row);
        int2 lower = pixel_of_place(p, image, y0, x0, first + row + 8);
        float sum[2][4] = {};
#pragma unroll 2
        for (int block = half; block < p.blocks; block += 2) {
            ChunkSource<T> source = find_chunk<T>(p.segments, block);
            uint4 a = normed_chunk(p, source, upper), b = normed_chunk(p, source, lower);
            uint4 taps = load_16_bytes(tap_weights<T>(p, block, row) + lane % 4 * 8), last = make_uint4(0, 0, 0, 0);
            // The ninth tap is column 0 of a second product.
            if (row == 0) last = load_16_bytes(tap_weights<T>(p, block, TAPS - 1) + lane % 4 * 8);
            unsigned early[4] = {a.x, b.x, a.y, b.y}, late[4] = {a.z, b.z, a.w, b.w};
            mma_m16n8k16<T>(sum[0], early, {taps.x, taps.y});
            mma_m16n8k16<T>(sum[0], late, {taps.z, taps.w});
            mma_m16n8k16<T>(sum[1], early, {last.x, last.y});
            mma_m16n8k16<T>(sum[1], late, {last.z, last.w});
        }
#pragma unroll
        for (int i = 0; i < 4; i++) products[first + row + i / 2 * 8][lane % 4 * 2 + i % 2] = sum[0][i];
        if (lane % 4 == 0) {
            products[first + row][TAPS - 1] = sum[1][0];
            products[first + row + 8][TAPS - 1] = sum[1][2];
        }
    } else {
        for (int row = 0; row < 16; row++) {
            int2 place = pixel_of_place(p, image, y0, x0, first + row);
            float sum[TAPS] = {};
            for (int block = half; block < p.blocks; block += 2) {
                float x = normed_element<T>(p, place, block * BLOCK_CHANNELS + lane);
#pragma unroll
                for (int tap = 0; tap < TAPS; tap++) sum[tap] += x * tap_weights<T>(p, block, tap)[lane];
            }
#pragma unroll
            for (int tap = 0; tap < TAPS; tap++) {
                float total = warp_sum(sum[tap]);
                if (lane == 0) products[first + row][tap] = total;
            }
        }
    }
}

template <typename T>
__device__ void adapter_gate(const GateParams& p) {
    GateShared& shared = shared_as<GateShared>();
    int tile = blockIdx.x, x0 = tile % p.tiles_x * GATE_SIDE;
    int y0 = tile / p.tiles_x % p.tiles_y * GATE_SIDE, image = tile / p.tiles_x / p.tiles_y;
    int half = warp_index() / GATE_WARPS, first = warp_index() % GATE_WARPS * 16;
    if (first < GATE_PATCH * GATE_PATCH)
        multiply_taps<T>(p, image, y0, x0, half, first, shared.products[half]);
    __syncthreads();
    if (thread() < GATE_PIXELS) {
        int y = thread() / GATE_SIDE, x = thread() % GATE_SIDE;
        float logit = p.bias[0];
#pragma unroll
        for (int tap = 0; tap < TAPS; tap++) {
            int place = (y + tap / 3) * GATE_PATCH + x + tap % 3;
            logit += shared.products[0][place][tap] + shared.products[1][place][tap];
        }
        // The difference is 0, or NaN where the logit is infinite: an overflow must not end as a plain 0 or 1.
        float map = p.top * sigmoid(logit) + (logit - logit);
        shared.map[thread()] = map;
        bool inside = y0 + y < p.h && x0 + x < p.w;
        if (inside && blockIdx.y == 0) p.map[(uint64_t(image) * p.h + y0 + y) * p.w + x0 + x] = map;
    }
    __syncthreads();
    int start = blockIdx.y * p.slice, end = start + p.slice < p.d ? start + p.slice : p.d;
    int chunks = divide_up(end - start, 8);
    for (int item = thread(); item < GATE_PIXELS * chunks; item += GATE_THREADS) {
        int pixel = item / chunks, channel = start + item % chunks * 8;
        int y = y0 + pixel / GATE_SIDE, x = x0 + pixel % GATE_SIDE;
        if (y >= p.h || x >= p.w) continue;
        int own = end - channel < 8 ? end - channel : 8;
        bool whole = p.aligned && own == 8;
        uint64_t at = ((uint64_t(image) * p.h + y) * p.w + x) * p.d + channel;
        float base[8], residual[8];
        const T *from = static_cast<const T*>(p.base) + at, *add = static_cast<const T*>(p.residual) + at;
        whole ? load_8(from, base) : load_some(from, base, own);
        whole ? load_8(add, residual) : load_some(add, residual, own);
#pragma unroll
        for (int i = 0; i < 8; i++) base[i] += shared.map[pixel] * residual[i];
        T* to = static_cast<T*>(p.out) + at;
        whole ? store_8(to, base) : store_some(to, base, own);
    }
}
KERNEL_ALL(adapter_gate, GateParams, 512, adapter_gate)
