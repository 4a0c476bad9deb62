// Token embeddings: out[n, place] = table[token] + positions[place]. Texts are small: one element a thread.
#include "common/kernel.cuh"

// tokens [n, length], table [vocabulary, width] f32, positions [length, width] f32 => [n, length, width];
// 256 threads
struct EmbedTokensParams {
    void* out;
    const unsigned* tokens;
    const float* table;
    const float* positions;
    uint64_t count;
    unsigned length;
    unsigned width;
};
static_assert(sizeof(EmbedTokensParams) == 48, "src/ops/embedding/cuda.rs mirrors this");

template <typename T>
__device__ void embed_tokens(const EmbedTokensParams& p) {
    uint64_t i = uint64_t(blockIdx.x) * blockDim.x + thread();
    if (i >= p.count) return;
    uint64_t row = i / p.width, place = row % p.length, channel = i % p.width;
    float value = p.table[uint64_t(p.tokens[row]) * p.width + channel] + p.positions[place * p.width + channel];
    static_cast<T*>(p.out)[i] = from_f32<T>(value);
}
KERNEL_ALL(embed_tokens, EmbedTokensParams, 256, embed_tokens)
