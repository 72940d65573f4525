// Statistics of token rows, and the greedy choice. Sums are f64 of distances from the row's first value, in a fixed order.

// Rows of one tensor.
struct StatisticsEntry {
    u64 x;
    u32 rows;
    u32 width;        // 0 for ragged rows
    u32 heads;        // of ragged rows
    u32 first_position;
    u32 first_block;
    u32 out_row;
    u32 window;       // of ragged rows
    u32 warps;        // of each row: 1, 2, 4 or 8
};

const u32 MOST_STATISTICS = 96;
const u32 STATISTICS_WARPS = 8;  // of a block

struct Statistics {
    u64 out;
    StatisticsEntry entries[MOST_STATISTICS];
    u32 count;
    u32 unused;
};

// Of a row; before they are finished, `mean` and `m2` hold the sums of distances and of their squares.
struct RowStatistics {
    u32 count;
    u32 nan;
    u32 pos_inf;
    u32 neg_inf;
    u32 zero;
    u32 subnormal;
    u32 min_index;
    u32 max_index;
    float min;
    float max;
    u32 smallest;  // bits of the smallest nonzero finite magnitude, less one; all ones where there is none
    u32 unused;
    double mean;
    double m2;
    double l1;
    u64 fingerprint;
};

const u32 NO_INDEX = 0xFFFFFFFFu;

__device__ __forceinline__ RowStatistics nothing() {
    RowStatistics s = {};
    s.min_index = s.max_index = NO_INDEX;
    s.min = INFINITY;
    s.max = -INFINITY;
    s.smallest = 0xFFFFFFFFu;
    return s;
}

__device__ __forceinline__ u32 magnitude_of(float value) {
    return __float_as_uint(value) & 0x7FFFFFFFu;
}

__device__ __forceinline__ void add_bits(RowStatistics &s, float value, u32 column) {
    u32 mask = column * 0x9E3779B1u, factor = (column * 0x85EBCA77u + 0xC2B2AE3Du) | 1u;
    s.fingerprint += (u64)(__float_as_uint(value) ^ mask) * (u64)factor;
}

__device__ __forceinline__ void add_finite(RowStatistics &s, float value, u32 column, float shift) {
    if (value < s.min) { s.min = value; s.min_index = column; }
    if (value > s.max) { s.max = value; s.max_index = column; }
    s.smallest = min(s.smallest, magnitude_of(value) - 1u);
    double distance = (double)value - (double)shift;
    s.mean += distance;
    s.m2 = __fma_rn(distance, distance, s.m2);
    s.l1 += fabs((double)value);
}

__device__ __forceinline__ void add_element(RowStatistics &s, float value, u32 column, float shift) {
    u32 bits = __float_as_uint(value), magnitude = magnitude_of(value);
    add_bits(s, value, column);
    if (magnitude < 0x7F800000u) {
        add_finite(s, value, column, shift);
        if (magnitude < 0x00800000u) {
            if (magnitude == 0) s.zero++;
            else s.subnormal++;
        }
    } else if (magnitude > 0x7F800000u) {
        s.nan++;
    } else if (bits >> 31) {
        s.neg_inf++;
    } else {
        s.pos_inf++;
    }
}

// Neither zero nor subnormal, neither infinite nor NaN.
__device__ __forceinline__ bool is_normal(float value) {
    return magnitude_of(value) - 0x00800000u < 0x7F000000u;
}

// Four elements. Nearly always there is nothing of them to count, and one question tells.
__device__ __forceinline__ void add_four(RowStatistics &s, float4 v, u32 column, float shift) {
    if (is_normal(v.x) & is_normal(v.y) & is_normal(v.z) & is_normal(v.w)) {
        add_bits(s, v.x, column);
        add_finite(s, v.x, column, shift);
        add_bits(s, v.y, column + 1);
        add_finite(s, v.y, column + 1, shift);
        add_bits(s, v.z, column + 2);
        add_finite(s, v.z, column + 2, shift);
        add_bits(s, v.w, column + 3);
        add_finite(s, v.w, column + 3, shift);
    } else {
        add_element(s, v.x, column, shift);
        add_element(s, v.y, column + 1, shift);
        add_element(s, v.z, column + 2, shift);
        add_element(s, v.w, column + 3, shift);
    }
}

__device__ __forceinline__ void merge(RowStatistics &s, const RowStatistics &o) {
    s.count += o.count;
    s.nan += o.nan;
    s.pos_inf += o.pos_inf;
    s.neg_inf += o.neg_inf;
    s.zero += o.zero;
    s.subnormal += o.subnormal;
    if (o.min < s.min || (o.min == s.min && o.min_index < s.min_index)) { s.min = o.min; s.min_index = o.min_index; }
    if (o.max > s.max || (o.max == s.max && o.max_index < s.max_index)) { s.max = o.max; s.max_index = o.max_index; }
    s.smallest = min(s.smallest, o.smallest);
    s.mean += o.mean;
    s.m2 += o.m2;
    s.l1 += o.l1;
    s.fingerprint += o.fingerprint;
}

template <class T>
__device__ __forceinline__ T from_lane(T value, u32 width) {
    return __shfl_xor_sync(0xFFFFFFFFu, value, width);
}

// Over a warp. Sums of pairs are the same from both sides, so all lanes end with the same bits.
__device__ __forceinline__ void merge_warp(RowStatistics &s) {
    for (u32 width = 16; width > 0; width >>= 1) {
        RowStatistics o;
        o.count = from_lane(s.count, width);
        o.nan = from_lane(s.nan, width);
        o.pos_inf = from_lane(s.pos_inf, width);
        o.neg_inf = from_lane(s.neg_inf, width);
        o.zero = from_lane(s.zero, width);
        o.subnormal = from_lane(s.subnormal, width);
        o.min_index = from_lane(s.min_index, width);
        o.max_index = from_lane(s.max_index, width);
        o.min = from_lane(s.min, width);
        o.max = from_lane(s.max, width);
        o.smallest = from_lane(s.smallest, width);
        o.mean = from_lane(s.mean, width);
        o.m2 = from_lane(s.m2, width);
        o.l1 = from_lane(s.l1, width);
        o.fingerprint = from_lane(s.fingerprint, width);
        merge(s, o);
    }
}

__device__ __forceinline__ float finite_or_zero(float value) {
    return (__float_as_uint(value) & 0x7FFFFFFFu) < 0x7F800000u ? value : 0.0f;
}

// From sums of distances to mean and squared distances from it.
__device__ __forceinline__ void finish(RowStatistics &s, float shift) {
    u32 finite = s.count - s.nan - s.pos_inf - s.neg_inf;
    if (finite == 0) {
        s.mean = s.m2 = 0.0;
        return;
    }
    double sum = s.mean;
    s.mean = (double)shift + sum / finite;
    s.m2 = fmax(s.m2 - sum * sum / finite, 0.0);
}

// The tensor that a block belongs to.
__device__ __forceinline__ const StatisticsEntry &entry_of(const Statistics &p, u32 block) {
    u32 low = 0, high = p.count - 1;
    while (low < high) {
        u32 middle = (low + high + 1) / 2;
        if (p.entries[middle].first_block <= block) low = middle;
        else high = middle - 1;
    }
    return p.entries[low];
}

struct Row {
    const float *x;
    u32 length;
};

__device__ __forceinline__ Row row_of(const StatisticsEntry &e, u32 row) {
    const float *x = (const float *)e.x;
    if (e.width != 0) return {x + (u64)row * e.width, e.width};
    u32 all = e.first_position + 1;
    return {x + ragged_offset(e.heads, row, all, e.window), e.heads * min(all + row, e.window)};
}

// Of the elements `start` to `end` of a row, by a warp; all lanes get it.
__device__ __forceinline__ RowStatistics statistics_of(const float *row, u32 start, u32 end, float shift, u32 lane) {
    RowStatistics s = nothing();
    // Whole runs of four from an aligned address on; in ascending order, so that the first of equal extremes is kept.
    u32 head = min((u32)((16 - (u64)(row + start) % 16) / 4 % 4), end - start), fours = (end - start - head) / 4;
    if (lane < head) add_element(s, row[start + lane], start + lane, shift);
    const float4 *aligned = (const float4 *)(row + start + head);
    // Several loads are under way before the first is used.
    const u32 AHEAD = 4;
    for (u32 i = lane; i < fours; i += 32 * AHEAD) {
        float4 values[AHEAD];
#pragma unroll
        for (u32 j = 0; j < AHEAD; j++) {
            if (i + j * 32 < fours) values[j] = __ldg(aligned + i + j * 32);
        }
#pragma unroll
        for (u32 j = 0; j < AHEAD; j++) {
            if (i + j * 32 >= fours) break;
            add_four(s, values[j], start + head + (i + j * 32) * 4, shift);
        }
    }
    u32 rest = start + head + fours * 4 + lane;
    if (rest < end) add_element(s, row[rest], rest, shift);
    merge_warp(s);
    s.count = end - start;
    return s;
}

// A block takes a long row, or several short ones with some of its warps each.
extern "C" __global__ void __launch_bounds__(STATISTICS_WARPS * 32) statistics(const __grid_constant__ Statistics p) {
    __shared__ RowStatistics parts[STATISTICS_WARPS];
    __shared__ float shifts[STATISTICS_WARPS];
    u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const StatisticsEntry &e = entry_of(p, blockIdx.x);
    u32 first = (blockIdx.x - e.first_block) * (STATISTICS_WARPS / e.warps);
    if (first + warp / e.warps < e.rows) {
        Row row = row_of(e, first + warp / e.warps);
        u32 length = (row.length + e.warps - 1) / e.warps, start = min(warp % e.warps * length, row.length);
        float shift = finite_or_zero(row.x[0]);
        RowStatistics s = statistics_of(row.x, start, min(start + length, row.length), shift, lane);
        if (lane == 0) {
            parts[warp] = s;
            shifts[warp] = shift;
        }
    }
    __syncthreads();
    // A thread for each row puts its parts together.
    u32 row = first + threadIdx.x, part = threadIdx.x * e.warps;
    if (part >= STATISTICS_WARPS || row >= e.rows) return;
    RowStatistics s = parts[part];
    for (u32 i = 1; i < e.warps; i++) merge(s, parts[part + i]);
    finish(s, shifts[part]);
    ((RowStatistics *)p.out)[e.out_row + row] = s;
}

// ---- The largest logit: the lowest index of equals, never a NaN; index 0 where all are NaN

struct Choose {
    u64 logits;
    u64 parts;
    u64 out;  // fingerprint, then token
    u32 width;
    u32 count;  // parts
};

// The best of a part of the row, and the part's share of the fingerprint.
struct Best {
    u64 fingerprint;
    float value;
    u32 index;
};

__device__ __forceinline__ void take(Best &best, const Best &other) {
    best.fingerprint += other.fingerprint;
    bool better = best.index == NO_INDEX || other.value > best.value || (other.value == best.value && other.index < best.index);
    if (other.index != NO_INDEX && better) {
        best.value = other.value;
        best.index = other.index;
    }
}

// Over a block of 256; thread 0 has the result.
__device__ __forceinline__ Best block_best(Best best) {
    __shared__ Best scratch[8];
    for (u32 width = 16; width > 0; width >>= 1) {
        Best other;
        other.fingerprint = from_lane(best.fingerprint, width);
        other.value = from_lane(best.value, width);
        other.index = from_lane(best.index, width);
        take(best, other);
    }
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = best;
    __syncthreads();
    if (threadIdx.x == 0) {
        for (u32 warp = 1; warp < 8; warp++) take(best, scratch[warp]);
    }
    return best;
}

const u32 CHOOSE_PART = 2048;  // logits of a block

extern "C" __global__ void __launch_bounds__(256) choose_parts(const __grid_constant__ Choose p) {
    in_turn();
    const float *logits = (const float *)p.logits;
    Best best = {0, 0.0f, NO_INDEX};
    u32 start = blockIdx.x * CHOOSE_PART, end = min(p.width, start + CHOOSE_PART);
#pragma unroll 4
    for (u32 i = start + threadIdx.x; i < end; i += 256) {
        float value = logits[i];
        u32 mask = i * 0x9E3779B1u, factor = (i * 0x85EBCA77u + 0xC2B2AE3Du) | 1u;
        Best other = {(u64)(__float_as_uint(value) ^ mask) * (u64)factor, value, value == value ? i : NO_INDEX};
        take(best, other);
    }
    best = block_best(best);
    if (threadIdx.x == 0) ((Best *)p.parts)[blockIdx.x] = best;
}

extern "C" __global__ void __launch_bounds__(256) choose(const __grid_constant__ Choose p) {
    in_turn();
    Best best = {0, 0.0f, NO_INDEX};
    for (u32 i = threadIdx.x; i < p.count; i += 256) take(best, ((const Best *)p.parts)[i]);
    best = block_best(best);
    if (threadIdx.x != 0) return;
    ((u64 *)p.out)[0] = best.fingerprint;
    ((u64 *)p.out)[1] = best.index == NO_INDEX ? 0 : best.index;
}
