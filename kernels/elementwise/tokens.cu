// Token matrices put together and taken apart.
#include "common/kernel.cuh"

// out[n, to + l] = factor * in[n, from + l], or of token `from` for every l: in [n, in_tokens, c] => tokens `to` to
// `to + count` of out [n, out_tokens, c]; 256 threads, one element each; moves 2 * n * count * c elements
struct MoveTokensParams {
    void* out;
    const void* in;
    unsigned elements;  // n * count * c
    unsigned channels, count;
    unsigned out_tokens, to;
    unsigned in_tokens, from;
    unsigned step;  // 1 to go through the tokens of an image, 0 to repeat the one at `from`
    float factor;
    unsigned pad;
};
static_assert(sizeof(MoveTokensParams) == 56, "src/ops/tokens/cuda.rs mirrors this");

template <typename T>
__device__ void move_tokens(const MoveTokensParams& p) {
    unsigned i = blockIdx.x * blockDim.x + thread();
    if (i >= p.elements) return;
    unsigned channel = i % p.channels, token = i / p.channels % p.count, image = i / p.channels / p.count;
    uint64_t from = uint64_t(image) * p.in_tokens + p.from + token * p.step;
    uint64_t to = uint64_t(image) * p.out_tokens + p.to + token;
    float value = to_f32(static_cast<const T*>(p.in)[from * p.channels + channel]);
    static_cast<T*>(p.out)[to * p.channels + channel] = from_f32<T>(value * p.factor);
}
KERNEL_ALL(move_tokens, MoveTokensParams, 256, move_tokens)
