// Statistics of token rows, and the greedy choice. One launch covers the tensors of a layer; rows longer than a unit are
// put together by a second. Sums are f64 of distances from the row's first value, in a fixed order.

struct StatisticsEntry {
    u64 x;
    u32 rows;
    u32 width;      // 0 for ragged rows
    u32 heads;      // of ragged rows
    u32 first_row;  // in the batch
    u32 units;      // of each row
    u32 first_unit;
    u32 out_row;
    u32 window;     // of ragged rows
};

struct Statistics {
    u64 step;
    u64 partials;
    u64 out;
    u64 entries;
    u32 count;
    u32 unit;   // elements of a row that a warp takes
    u32 units;  // of all rows
    u32 unused;
};

// Of a row; in partial results `mean` and `m2` hold the sums of distances and of their squares.
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

__device__ __forceinline__ void add_element(RowStatistics &s, float value, u32 column, float shift) {
    u32 bits = __float_as_uint(value), magnitude = bits & 0x7FFFFFFFu;
    u32 mask = column * 0x9E3779B1u, factor = (column * 0x85EBCA77u + 0xC2B2AE3Du) | 1u;
    s.fingerprint += (u64)(bits ^ mask) * (u64)factor;
    if (magnitude < 0x7F800000u) {
        if (value < s.min) { s.min = value; s.min_index = column; }
        if (value > s.max) { s.max = value; s.max_index = column; }
        s.smallest = min(s.smallest, magnitude - 1u);
        double distance = (double)value - (double)shift;
        s.mean += distance;
        s.m2 = __fma_rn(distance, distance, s.m2);
        s.l1 += fabs((double)value);
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

struct Place {
    const float *row;
    u32 length;
    u32 unit;     // of the row
    u32 out_row;
    u32 units;
    u64 partial;  // number of its first partial result
};

__device__ __forceinline__ Place place_of(const Statistics &p, u32 unit) {
    const StatisticsEntry *entries = (const StatisticsEntry *)p.entries;
    u32 low = 0, high = p.count - 1;
    while (low < high) {
        u32 middle = (low + high + 1) / 2;
        if (entries[middle].first_unit <= unit) low = middle;
        else high = middle - 1;
    }
    StatisticsEntry e = entries[low];
    u32 within = unit - e.first_unit, row = within / e.units;
    Place place;
    place.unit = within % e.units;
    place.units = e.units;
    place.out_row = e.out_row + row;
    place.partial = unit - place.unit;
    place.row = (const float *)e.x;
    place.length = e.width;
    if (e.width == 0) {
        u32 all = ((const Step *)p.step)->first_position + e.first_row + 1;
        place.row += ragged_offset(e.heads, row, all, e.window);
        place.length = e.heads * min(all + row, e.window);
    } else {
        place.row += (u64)row * e.width;
    }
    return place;
}

// A unit of a row a warp.
extern "C" __global__ void __launch_bounds__(256) statistics(const __grid_constant__ Statistics p) {
    in_turn();
    u32 number = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (number >= p.units) return;
    Place place = place_of(p, number);
    float shift = finite_or_zero(place.row[0]);
    RowStatistics s = nothing();
    u32 start = place.unit * p.unit, end = max(start, min(place.length, start + p.unit));
    // Whole runs of four from an aligned address on; in ascending order, so that the first of equal extremes is kept.
    u32 head = min((u32)((16 - (u64)(place.row + start) % 16) / 4 % 4), end - start), fours = (end - start - head) / 4;
    if (lane < head) add_element(s, place.row[start + lane], start + lane, shift);
    const float4 *aligned = (const float4 *)(place.row + start + head);
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
            u32 column = start + head + (i + j * 32) * 4;
            add_element(s, values[j].x, column, shift);
            add_element(s, values[j].y, column + 1, shift);
            add_element(s, values[j].z, column + 2, shift);
            add_element(s, values[j].w, column + 3, shift);
        }
    }
    u32 rest = start + head + fours * 4 + lane;
    if (rest < end) add_element(s, place.row[rest], rest, shift);
    merge_warp(s);
    if (lane != 0) return;
    s.count = end - start;
    if (place.units == 1) {
        finish(s, shift);
        ((RowStatistics *)p.out)[place.out_row] = s;
    } else {
        ((RowStatistics *)p.partials)[number] = s;
    }
}

// Rows of several units: the warp of a row's first unit puts them together.
extern "C" __global__ void __launch_bounds__(256) statistics_merge(const __grid_constant__ Statistics p) {
    in_turn();
    u32 number = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (number >= p.units) return;
    Place place = place_of(p, number);
    if (place.units == 1 || place.unit != 0) return;
    RowStatistics s = nothing();
    for (u32 unit = lane; unit < place.units; unit += 32) {
        merge(s, ((const RowStatistics *)p.partials)[place.partial + unit]);
    }
    merge_warp(s);
    if (lane == 0) {
        finish(s, finite_or_zero(place.row[0]));
        ((RowStatistics *)p.out)[place.out_row] = s;
    }
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
