// Group norm over a virtual concatenation, as a per-image, per-channel affine map.
//
// The unit is the channel: moments of every distinct tensor, and of the sums of two, are taken once per channel,
// whatever parts and groups they belong to, and put together by group at the end.
#include "common/columns.cuh"
#include "common/grid.cuh"
#include "common/kernel.cuh"
#include "common/math.cuh"
#include "common/segments.cuh"

// --- group_norm: coefficients = fold(moments(sources)) -----------------------------------------------------
// sources [images, area, c] => coefficients [images, 2, channels] f32, moments [images, groups, 2] f32;
// 256 threads: 64 channels of a source, a slice of the rows of one image; grid (tiles * slices, images); moves
// every source once.
//
// A slice's sums are about its first row: with n rows, the squares are at most n + 1 times the spread about the
// mean, so a mean however large costs no accuracy. Slices and channels are joined by their means and spreads
// (Chan). The last block of a tile joins the slices, the last block of an image its groups.

constexpr int MAX_SOURCES = 8;
constexpr unsigned NO_SLOT = 0xffffffffu;

// A tensor, or two of one shape that are read together.
struct NormSource {
    const void* a;  // [images, area, channels]
    const void* b;  // or absent
    // where in a row of moments those of a, of b and of a + b go; NO_SLOT where nobody needs them
    unsigned slot[3];
    unsigned channels;
    unsigned tiles_end;  // tiles of this source and those before it
    // channels are a multiple of 8, addresses of 16
    unsigned aligned;
};

struct GroupNormParams {
    float* coefficients;  // [images, 2, channels] or absent
    float* statistics;    // [images, groups, 2]: means, then 1 / deviation; or absent
    float2* partial;      // [images, slices, tiles, sums a channel, 64]: mean and spread; unused with one slice
    float2* moments;      // [images, slots]: mean and sum of squared distances from it
    unsigned* counters;   // [images, tiles + 1]
    const float* gamma;   // [channels] or absent: ones
    const float* beta;    // [channels] or absent: zeros
    const void* adaln;    // [images or 1, 2 * channels]: scales, then shifts; or absent
    NormSource source[MAX_SOURCES];
    unsigned part_end[MAX_SEGMENTS];   // channels of a part of the concatenation and those before it
    unsigned part_slot[MAX_SEGMENTS];  // where its moments are
    unsigned parts, sources, channels, groups;
    unsigned area, slices, rows, tiles;  // rows: of a slice
    unsigned slots, adaln_stride, adaln_f32;
    float eps;
};
static_assert(sizeof(GroupNormParams) == 496, "src/ops/group_norm/cuda.rs mirrors this");

template <int STATS>
struct GroupNormShared {
    union {
        ColumnSums<2 * STATS> sums;
        float2 slices[4][COLUMN_CHANNELS];
    };
    unsigned flag[4];
};
static_assert(sizeof(GroupNormShared<1>) == 4112 && sizeof(GroupNormShared<3>) == 12304,
              "src/ops/group_norm/plan.rs knows these");

// Adds (x - pivot) and its square for rows `first` to `end` of eight channels, the pivot being row `first`.
template <typename T, bool WHOLE, int SUMS>
__device__ __forceinline__ void add_one(const NormSource& s, uint64_t start, unsigned first, unsigned end, int own,
                                        float (&sums)[SUMS][8]) {
    constexpr int UNROLL = 4;
    const T* a = static_cast<const T*>(s.a) + start;
    Fetched<T, WHOLE> line[UNROLL];
    float pivot[8], x[8];
    line[0].load(a + uint64_t(first) * s.channels, own);
    line[0].get(pivot);
    for (unsigned row = first + column_row(); row < end; row += UNROLL * COLUMN_ROWS) {
#pragma unroll
        for (int i = 0; i < UNROLL; i++) {
            // Beyond the end the pivot is read again: it adds nothing.
            unsigned at = row + i * COLUMN_ROWS;
            line[i].load(a + uint64_t(at < end ? at : first) * s.channels, own);
        }
#pragma unroll
        for (int i = 0; i < UNROLL; i++) {
            line[i].get(x);
#pragma unroll
            for (int j = 0; j < 8; j++) {
                float d = x[j] - pivot[j];
                sums[0][j] += d;
                sums[1][j] += d * d;
            }
        }
    }
}

// The same of a, of b and of a + b.
template <typename T, bool WHOLE>
__device__ __forceinline__ void add_pair(const NormSource& s, uint64_t start, unsigned first, unsigned end, int own,
                                         float (&sums)[6][8]) {
    constexpr int UNROLL = 2;
    const T *a = static_cast<const T*>(s.a) + start, *b = static_cast<const T*>(s.b) + start;
    Fetched<T, WHOLE> line_a[UNROLL], line_b[UNROLL];
    float pivot_a[8], pivot_b[8], x[8], y[8];
    line_a[0].load(a + uint64_t(first) * s.channels, own);
    line_b[0].load(b + uint64_t(first) * s.channels, own);
    line_a[0].get(pivot_a);
    line_b[0].get(pivot_b);
    for (unsigned row = first + column_row(); row < end; row += UNROLL * COLUMN_ROWS) {
#pragma unroll
        for (int i = 0; i < UNROLL; i++) {
            unsigned at = row + i * COLUMN_ROWS;
            uint64_t from = uint64_t(at < end ? at : first) * s.channels;
            line_a[i].load(a + from, own);
            line_b[i].load(b + from, own);
        }
#pragma unroll
        for (int i = 0; i < UNROLL; i++) {
            line_a[i].get(x);
            line_b[i].get(y);
#pragma unroll
            for (int j = 0; j < 8; j++) {
                float da = x[j] - pivot_a[j], db = y[j] - pivot_b[j], both = da + db;
                sums[0][j] += da;
                sums[1][j] += da * da;
                sums[2][j] += db;
                sums[3][j] += db * db;
                sums[4][j] += both;
                sums[5][j] += both * both;
            }
        }
    }
}

template <typename T, bool WHOLE, int SUMS>
__device__ __forceinline__ void add_source(const NormSource& s, uint64_t start, unsigned first, unsigned end, int own,
                                           float (&sums)[SUMS][8]) {
    if constexpr (SUMS == 6) {
        if (s.b) return add_pair<T, WHOLE>(s, start, first, end, own, sums);
    }
    add_one<T, WHOLE>(s, start, first, end, own, sums);
}

// The pivot of sum `stat` (a, b, a + b) of one channel.
template <typename T>
__device__ __forceinline__ float pivot_of(const NormSource& s, unsigned stat, uint64_t at) {
    float a = stat != 1 ? to_f32(static_cast<const T*>(s.a)[at]) : 0.0f;
    float b = stat != 0 ? to_f32(static_cast<const T*>(s.b)[at]) : 0.0f;
    return a + b;
}

// Joins the slices of a tile: their means and spreads become those of the whole image.
template <int STATS>
__device__ __forceinline__ void join_slices(const GroupNormParams& p, const NormSource& s, unsigned tile, unsigned first,
                                            GroupNormShared<STATS>& shared) {
    unsigned lane = thread() % COLUMN_CHANNELS, part = thread() / COLUMN_CHANNELS;
    uint64_t stride = uint64_t(p.tiles) * STATS * COLUMN_CHANNELS;
    const float2* tiles = p.partial + blockIdx.y * p.slices * stride + uint64_t(tile) * STATS * COLUMN_CHANNELS;
    for (int stat = 0; stat < STATS; stat++) {
        if (s.slot[stat] == NO_SLOT) continue;
        const float2* from = tiles + stat * COLUMN_CHANNELS + lane;
        float pivot = from->x, shift = 0.0f, spread = 0.0f;
#pragma unroll 4
        for (unsigned slice = part; slice < p.slices; slice += 4) {
            float2 own = from[slice * stride];
            unsigned left = p.area - slice * p.rows;
            float count = float(left < p.rows ? left : p.rows), d = own.x - pivot;
            shift += count * d;
            spread += own.y + count * d * d;
        }
        shared.slices[part][lane] = make_float2(shift, spread);
        __syncthreads();
        if (part == 0 && first + lane < s.channels) {
#pragma unroll
            for (int i = 1; i < 4; i++) {
                shift += shared.slices[i][lane].x;
                spread += shared.slices[i][lane].y;
            }
            float area = float(p.area), mean = shift / area;
            p.moments[uint64_t(blockIdx.y) * p.slots + s.slot[stat] + first + lane] =
                make_float2(pivot + mean, spread - shift * mean);
        }
        __syncthreads();
    }
}

// The moments of channel `channel` of the concatenation.
__device__ __forceinline__ float2 moments_of(const GroupNormParams& p, unsigned channel) {
    unsigned slot = p.part_slot[0] + channel;
#pragma unroll
    for (int i = 0; i < MAX_SEGMENTS - 1; i++)
        if (i + 1 < p.parts && channel >= p.part_end[i]) slot = p.part_slot[i + 1] + channel - p.part_end[i];
    return p.moments[uint64_t(blockIdx.y) * p.slots + slot];
}

__device__ __forceinline__ float sum_of_8_lanes(float value) {
#pragma unroll
    for (int bits = 4; bits > 0; bits /= 2) value += __shfl_xor_sync(ALL_LANES, value, bits);
    return value;
}

// Joins the channels of each group and writes what is wanted: eight threads a group.
template <typename T>
__device__ __forceinline__ void fold(const GroupNormParams& p) {
    unsigned image = blockIdx.y, width = p.channels / p.groups, lane = thread() % 8;
    float area = float(p.area);
    for (unsigned start = 0; start < p.groups; start += COLUMN_THREADS / 8) {
        unsigned group = start + thread() / 8, base = group * width;
        unsigned own = group < p.groups ? width : 0;
        float mean = 0.0f, spread = 0.0f;
        for (unsigned i = lane; i < own; i += 8) mean += moments_of(p, base + i).x;
        mean = sum_of_8_lanes(mean) / float(width);
        for (unsigned i = lane; i < own; i += 8) {
            float2 channel = moments_of(p, base + i);
            float d = channel.x - mean;
            spread += channel.y + area * d * d;
        }
        spread = sum_of_8_lanes(spread);
        float inverse = 1.0f / sqrtf(spread / (area * float(width)) + p.eps);
        if (p.statistics && lane == 0 && own) {
            float* to = p.statistics + (uint64_t(image) * p.groups + group) * 2;
            to[0] = mean;
            to[1] = inverse;
        }
        if (!p.coefficients) continue;
        float* to = p.coefficients + uint64_t(image) * 2 * p.channels;
        for (unsigned i = lane; i < own; i += 8) {
            unsigned channel = base + i;
            float a = (p.gamma ? p.gamma[channel] : 1.0f) * inverse;
            float b = (p.beta ? p.beta[channel] : 0.0f) - mean * a;
            if (p.adaln) {
                uint64_t at = uint64_t(image) * p.adaln_stride + channel;
                auto adaln = [&](uint64_t i) {
                    return p.adaln_f32 ? static_cast<const float*>(p.adaln)[i]
                                       : to_f32(static_cast<const T*>(p.adaln)[i]);
                };
                float factor = 1.0f + adaln(at);
                a *= factor;
                b = b * factor + adaln(at + p.channels);
            }
            to[channel] = a;
            to[p.channels + channel] = b;
        }
    }
}

template <typename T, int STATS>
__device__ __forceinline__ void norm(const GroupNormParams& p) {
    auto& shared = shared_as<GroupNormShared<STATS>>();
    unsigned tile = blockIdx.x % p.tiles, slice = blockIdx.x / p.tiles, image = blockIdx.y;
    unsigned source = 0, first_tile = 0;
#pragma unroll
    for (int i = 0; i < MAX_SOURCES - 1; i++)
        if (i + 1 < p.sources && tile >= p.source[i].tiles_end) {
            source = i + 1;
            first_tile = p.source[i].tiles_end;
        }
    const NormSource& s = p.source[source];
    unsigned first = (tile - first_tile) * COLUMN_CHANNELS, channel = first + column_channel();
    unsigned row = slice * p.rows, end = p.area - row < p.rows ? p.area : row + p.rows;
    uint64_t start = uint64_t(image) * p.area * s.channels;
    int own = own_channels(channel, s.channels);
    float sums[2 * STATS][8] = {};
    if (own > 0) {
        if (s.aligned)
            add_source<T, true>(s, start + channel, row, end, own, sums);
        else
            add_source<T, false>(s, start + channel, row, end, own, sums);
    }
    add_rows_up(sums, shared.sums);

    unsigned stat = thread() / COLUMN_CHANNELS, lane = thread() % COLUMN_CHANNELS;
    if (stat < STATS && s.slot[stat] != NO_SLOT) {
        bool there = first + lane < s.channels;
        float count = float(end - row);
        float shift = column_sum(shared.sums, 2 * stat, lane), squares = column_sum(shared.sums, 2 * stat + 1, lane);
        float mean = shift / count;
        float pivot = there ? pivot_of<T>(s, stat, start + uint64_t(row) * s.channels + first + lane) : 0.0f;
        float2 moments = make_float2(pivot + mean, squares - shift * mean);
        if (p.slices > 1)
            p.partial[(((uint64_t(image) * p.slices + slice) * p.tiles + tile) * STATS + stat) * COLUMN_CHANNELS + lane] =
                moments;
        else if (there)
            p.moments[uint64_t(image) * p.slots + s.slot[stat] + first + lane] = moments;
    }
    unsigned* counters = p.counters + uint64_t(image) * (p.tiles + 1);
    if (p.slices > 1) {
        if (!arrive_last(counters + tile, p.slices, shared.flag[0])) return;
        join_slices<STATS>(p, s, tile, first, shared);
    }
    if (arrive_last(counters + p.tiles, p.tiles, shared.flag[1])) fold<T>(p);
}

template <typename T>
__device__ void group_norm(const GroupNormParams& p) {
    norm<T, 1>(p);
}
KERNEL_RESIDENT_(group_norm_f32, GroupNormParams, 256, 3, group_norm<float>)
KERNEL_HALF(group_norm, GroupNormParams, 256, group_norm)

// Some of the sources are read in pairs.
template <typename T>
__device__ void group_norm_pairs(const GroupNormParams& p) {
    norm<T, 3>(p);
}
KERNEL(group_norm_pairs_f32, GroupNormParams, 256, group_norm_pairs<float>)
KERNEL_HALF_RESIDENT(group_norm_pairs, GroupNormParams, 256, 2, group_norm_pairs)

// --- normalise: out = activation(x * a + b) + onto, a and b per image and channel --------------------------
// parts [images, area, c], coefficients [images, 2, channels] f32 => [images, area, channels]; 256 threads: 64
// channels of 128 rows; grid (tiles * slices, images); moves 2 to 4 * images * area * channels elements

struct NormaliseParams {
    void* out;
    const float* coefficients;
    const void* onto;  // [images, area, channels] or absent
    unsigned area;
    unsigned activation;
    float slope;
    unsigned pad;
    Segments segments;
};
static_assert(sizeof(NormaliseParams) == 216, "src/ops/group_norm/cuda.rs mirrors this");

constexpr int NORMALISE_ROWS = 4;

template <typename T, SegmentKind KIND>
__device__ __forceinline__ void normalise_rows(const NormaliseParams& p, const SegmentColumn<T>& column, unsigned row,
                                               int own) {
    constexpr bool WHOLE = KIND != ELEMENTS;
    unsigned channels = p.segments.channels;
    uint64_t image = uint64_t(blockIdx.y) * p.area;
    SegmentLine<T, KIND> line[NORMALISE_ROWS];
#pragma unroll
    for (int i = 0; i < NORMALISE_ROWS; i++)
        if (row + i * COLUMN_ROWS < p.area) line[i].load(p.segments, column, image + row + i * COLUMN_ROWS);
    float a[8], b[8];
    const float* coefficients = p.coefficients + uint64_t(blockIdx.y) * 2 * channels + column.channel;
    load_up_to_8(coefficients, a, own, WHOLE);
    load_up_to_8(coefficients + channels, b, own, WHOLE);
#pragma unroll
    for (int i = 0; i < NORMALISE_ROWS; i++) {
        if (row + i * COLUMN_ROWS >= p.area) break;
        float x[8];
        line[i].get(x);
#pragma unroll
        for (int j = 0; j < 8; j++) x[j] = x[j] * a[j] + b[j];
        activate_all(x, p.activation, p.slope);
        uint64_t to = (image + row + i * COLUMN_ROWS) * channels + column.channel;
        if (p.onto) {
            float onto[8];
            load_up_to_8(static_cast<const T*>(p.onto) + to, onto, own, WHOLE);
#pragma unroll
            for (int j = 0; j < 8; j++) x[j] += onto[j];
        }
        store_up_to_8(static_cast<T*>(p.out) + to, x, own, WHOLE);
    }
}

template <typename T>
__device__ void normalise(const NormaliseParams& p) {
    unsigned tiles = divide_up(p.segments.channels, COLUMN_CHANNELS);
    unsigned channel = blockIdx.x % tiles * COLUMN_CHANNELS + column_channel();
    unsigned row = blockIdx.x / tiles * NORMALISE_ROWS * COLUMN_ROWS + column_row();
    int own = own_channels(channel, p.segments.channels);
    if (own == 0) return;
    SegmentColumn<T> column = segment_column<T>(p.segments, channel);
    if (!p.segments.aligned)
        normalise_rows<T, ELEMENTS>(p, column, row, own);
    else if (column.plus)
        normalise_rows<T, SUM_OF_TWO>(p, column, row, own);
    else
        normalise_rows<T, ONE_TENSOR>(p, column, row, own);
}
KERNEL_ALL(normalise, NormaliseParams, 256, normalise)
