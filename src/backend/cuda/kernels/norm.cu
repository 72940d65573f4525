// What norms are made of. Sums are f64, of segments of 256 elements and then of those in order, so that they do not depend on
// how many threads make them; every other step is rounded to f32.

struct Norm {
    u64 x;
    u64 gain;
    u64 bias;  // where 0, the norm is an RMS norm
    u64 out;
    u32 width;
    float epsilon;
    float gain_offset;  // added to every gain
    u32 unused;
};

const u32 SEGMENT = 256;
const u32 EIGHT = SEGMENT / 32;  // elements of a lane
const u32 MOST_SEGMENTS = 64;    // whose sums a block keeps at a time

__device__ __forceinline__ float gain_of(const Norm &p, float stored) {
    return p.gain_offset == 0.0f ? stored : stored + p.gain_offset;
}

__device__ __forceinline__ float norm_scale(const Norm &p, double squares) {
    return 1.0f / sqrtf((float)(squares / p.width) + p.epsilon);
}

// The sum over a warp of what its lanes have of a segment: of x, or of the squares of its distances from `mean`. `count` of
// the lane's elements are in the row.
__device__ __forceinline__ double segment_sum(const float *x, u32 count, bool squared, float mean) {
    double sum = 0.0;
#pragma unroll
    for (u32 i = 0; i < EIGHT; i++) {
        float distance = x[i] - mean;
        if (i < count) sum += squared ? distance * distance : x[i];
    }
    return warp_sum(sum);
}

// The same over a row, by a block; all threads get it. A thread holds the elements that would be its own if a warp had one
// segment. `segments` has room for MOST_SEGMENTS.
__device__ __forceinline__ double row_sum(const float *x, const float *held, u32 width, bool squared, float mean, double *segments) {
    u32 warp = threadIdx.x >> 5, lane = threadIdx.x & 31u, warps = blockDim.x >> 5, count = (width + SEGMENT - 1) / SEGMENT;
    double total = 0.0;
    for (u32 first = 0; first < count; first += MOST_SEGMENTS) {
        u32 end = min(first + MOST_SEGMENTS, count);
        __syncthreads();
        for (u32 segment = first + warp; segment < end; segment += warps) {
            u32 at = segment * SEGMENT + lane * EIGHT, inside = at < width ? min(width - at, EIGHT) : 0;
            float mine[EIGHT];
#pragma unroll
            for (u32 i = 0; i < EIGHT; i++) mine[i] = segment == warp ? held[i] : i < inside ? x[at + i] : 0.0f;
            double sum = segment_sum(mine, inside, squared, mean);
            if (lane == 0) segments[segment - first] = sum;
        }
        __syncthreads();
        for (u32 segment = 0; segment < end - first; segment++) total += segments[segment];
    }
    return total;
}
