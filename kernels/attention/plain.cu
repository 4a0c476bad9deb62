// Attention of heads of any width and alignment, without tensor cores: f32 for checking, and what the other
// kernels do not take.
//
// q [n, l, heads, width], k, v [n, m, heads, width] => out [n, l, heads, width], sum_log [n, heads, l].
// A block is 64 queries and 64 columns of the result, 256 threads of 4 x 4 sums; it scores over the whole width,
// so a head of width w is scored w / 64 times.
#include "attention/plain.cuh"

template <typename T>
__device__ void attention_plain(const AttentionParams& p) {
    PlainShared& shared = shared_as<PlainShared>();
    unsigned columns = divide_up(p.width, unsigned(PLAIN));
    unsigned first = blockIdx.x / columns * PLAIN, column = blockIdx.x % columns * PLAIN;
    unsigned head = blockIdx.y, image = blockIdx.z, l = p.q.rows, m = p.k.rows;
    PlainRows<T> q(p.q, image, head, p.width), k(p.k, image, head, p.width), v(p.v, image, head, p.width);
    int row = thread() / 16 * 4, lane = thread() % 16 * 4;
    float out[4][4] = {}, top[4], sum[4] = {};
    for (float& value : top) value = minus_infinity();
    unsigned seen = p.causal ? min(first + PLAIN, m) : m;
    for (unsigned key = 0; key < seen; key += PLAIN) {
        float s[4][4] = {};
        add_rows_by_rows(s, shared, q, first, k, key);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            unsigned visible = p.causal ? min(first + row + i + 1, m) : m;
            float grown = top[i];
#pragma unroll
            for (int j = 0; j < 4; j++) {
                if (key + lane + j >= visible) s[i][j] = minus_infinity();
                grown = fmaxf(grown, s[i][j]);
            }
#pragma unroll
            for (int bits = 8; bits > 0; bits /= 2) grown = fmaxf(grown, __shfl_xor_sync(ALL_LANES, grown, bits));
            float factor = exp2f((top[i] - grown) * p.scale);
            top[i] = grown;
            sum[i] *= factor;
#pragma unroll
            for (int j = 0; j < 4; j++) {
                s[i][j] = exp2f((s[i][j] - grown) * p.scale);
                sum[i] += s[i][j];
                out[i][j] *= factor;
            }
        }
        add_weights_by_rows(out, shared, s, v, key, column);
    }
    unsigned stride = p.heads * p.width;
    T* to = static_cast<T*>(p.out) + uint64_t(image) * l * stride + head * p.width;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float total = sum[i];
#pragma unroll
        for (int bits = 8; bits > 0; bits /= 2) total += __shfl_xor_sync(ALL_LANES, total, bits);
        unsigned query = first + row + i;
        if (query >= l) continue;
#pragma unroll
        for (int j = 0; j < 4; j++)
            if (column + lane + j < p.width)
                to[uint64_t(query) * stride + column + lane + j] = from_f32<T>(out[i][j] / total);
        if (p.sum_log && column == 0 && lane == 0)
            p.sum_log[(uint64_t(image) * p.heads + head) * l + query] = top[i] * p.scale * LN_2 + logf(total);
    }
}
KERNEL_ALL(attention_plain, AttentionParams, 256, attention_plain)
