// The gradients of attention without tensor cores, for heads of any width and alignment (see backward.cu), and
// what all backward kernels need of the result.
#include "attention/plain.cuh"

// A block's own rows are 64 queries (KEYS false) or keys (true), of whose gradients it makes 64 columns; it scores
// over the whole width, so a head of width w is scored w / 64 times.
template <bool KEYS, typename T>
__device__ __forceinline__ void plain_backward(const AttentionBackwardParams& p) {
    PlainShared& shared = shared_as<PlainShared>();
    unsigned columns = divide_up(p.width, unsigned(PLAIN));
    unsigned first = blockIdx.x / columns * PLAIN, column = blockIdx.x % columns * PLAIN;
    unsigned head = blockIdx.y, image = blockIdx.z, l = p.q.rows, m = p.k.rows;
    PlainRows<T> q(p.q, image, head, p.width), k(p.k, image, head, p.width), v(p.v, image, head, p.width);
    PlainRows<T> g(p.gradient, image, head, p.width);
    const float* sum_log = p.sum_log + (uint64_t(image) * p.heads + head) * l;
    const float* products = p.products + (uint64_t(image) * p.heads + head) * l;
    int row = thread() / 16 * 4, lane = thread() % 16 * 4;
    float out[4][4] = {}, values[4][4] = {};
    unsigned begin = KEYS && p.causal ? first : 0;
    unsigned end = KEYS ? l : p.causal ? min(first + PLAIN, m) : m;
    for (unsigned other = begin; other < end; other += PLAIN) {
        float weights[4][4] = {}, d[4][4] = {};
        if (KEYS) {
            add_rows_by_rows(weights, shared, k, first, q, other);
            add_rows_by_rows(d, shared, v, first, g, other);
        } else {
            add_rows_by_rows(weights, shared, q, first, k, other);
            add_rows_by_rows(d, shared, g, first, v, other);
        }
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int j = 0; j < 4; j++) {
                unsigned own = first + row + i, streamed = other + lane + j;
                unsigned query = KEYS ? streamed : own, key = KEYS ? own : streamed;
                bool seen = query < l && key < m && (!p.causal || key <= query);
                float weight = seen ? exp2f(weights[i][j] * p.scale - sum_log[query] * LOG2_E) : 0.0f;
                d[i][j] = seen ? weight * (d[i][j] - products[query]) : 0.0f;
                weights[i][j] = weight;
            }
        if (KEYS) add_weights_by_rows(values, shared, weights, g, other, column);
        add_weights_by_rows(out, shared, d, KEYS ? q : k, other, column);
    }
    auto write = [&](const Rows& target, float(&sums)[4][4], float factor) {
        if (!target.data) return;
        T* to = const_cast<T*>(head_of<T>(target, image, head, p.width));
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int j = 0; j < 4; j++)
                if (first + row + i < target.rows && column + lane + j < p.width)
                    to[uint64_t(first + row + i) * target.stride + column + lane + j] =
                        from_f32<T>(sums[i][j] * factor);
    };
    write(p.first, out, p.scale * LN_2);
    if (KEYS) write(p.second, values, 1.0f);
}

template <typename T>
__device__ void attention_dq_plain(const AttentionBackwardParams& p) {
    plain_backward<false, T>(p);
}
KERNEL_ALL(attention_dq_plain, AttentionBackwardParams, 256, attention_dq_plain)

template <typename T>
__device__ void attention_dkv_plain(const AttentionBackwardParams& p) {
    plain_backward<true, T>(p);
}
KERNEL_ALL(attention_dkv_plain, AttentionBackwardParams, 256, attention_dkv_plain)

// --- products of the result with its gradient ------------------------------------------------------------
// out, gradient [n, l, heads, width] => [n, heads, l]; a warp a row of a head; moves 2 n l heads width elements

struct AttentionProductsParams {
    float* products;
    const void* out;
    const void* gradient;
    uint64_t count;  // n * l * heads
    unsigned l;
    unsigned heads;
    unsigned width;
    unsigned pad;
};
static_assert(sizeof(AttentionProductsParams) == 48, "src/ops/attention/cuda.rs mirrors this");

template <typename T>
__device__ void attention_products(const AttentionProductsParams& p) {
    uint64_t item = uint64_t(blockIdx.x) * (blockDim.x / 32) + warp_index();
    if (item >= p.count) return;
    const T *out = static_cast<const T*>(p.out) + item * p.width, *gradient = static_cast<const T*>(p.gradient) + item * p.width;
    float sum = 0.0f;
    for (unsigned i = lane_index(); i < p.width; i += 32) sum += to_f32(out[i]) * to_f32(gradient[i]);
    sum = warp_sum(sum);
    uint64_t row = item / p.heads, image = row / p.l;
    if (lane_index() == 0) p.products[(image * p.heads + item % p.heads) * p.l + row % p.l] = sum;
}
KERNEL_ALL(attention_products, AttentionProductsParams, 256, attention_products)
