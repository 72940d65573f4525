// Norms, and operations element by element, in launches of their own.

// One block a row. What fits its registers is read once, and weights before x is there: a single row is all waiting.
extern "C" __global__ void __launch_bounds__(512) normalise(const __grid_constant__ Norm p) {
    successors_may_begin();
    __shared__ double segments[MOST_SEGMENTS];
    const float *x = (const float *)p.x + (u64)blockIdx.x * p.width, *gain = (const float *)p.gain, *bias = (const float *)p.bias;
    float *out = (float *)p.out + (u64)blockIdx.x * p.width, held[EIGHT], gains[EIGHT];
    u32 first = threadIdx.x * EIGHT, count = first < p.width ? min(p.width - first, EIGHT) : 0;
#pragma unroll
    for (u32 i = 0; i < EIGHT; i++) gains[i] = i < count ? gain[first + i] : 0.0f;
    predecessors_are_done();
#pragma unroll
    for (u32 i = 0; i < EIGHT; i++) held[i] = i < count ? x[first + i] : 0.0f;
    float mean = bias ? (float)(row_sum(x, held, p.width, false, 0.0f, segments) / p.width) : 0.0f;
    float scale = norm_scale(p, row_sum(x, held, p.width, true, mean, segments));
#pragma unroll
    for (u32 i = 0; i < EIGHT; i++) {
        float value = (held[i] - mean) * scale * gain_of(p, gains[i]);
        if (i < count) out[first + i] = bias ? value + bias[first + i] : value;
    }
    for (u32 at = blockDim.x * EIGHT + threadIdx.x; at < p.width; at += blockDim.x) {
        float value = (x[at] - mean) * scale * gain_of(p, gain[at]);
        out[at] = bias ? value + bias[at] : value;
    }
}

// One operation, and one more on its result where `next` says so: both results are written.
struct PointwiseJob {
    u64 x;
    u64 y;         // the other operand, a bias, or a table of cosines and sines by position; 0 where `number` is it
    u64 out;
    u64 next_y;
    u64 next_out;  // for STORE a cache, by position
    u32 operation;
    u32 next;
    u32 width;
    u32 rows;
    u32 first_row;
    u32 head_dim;
    u32 rotary_dim;
    u32 first_block;
    float number;  // a factor, or a cap
    u32 unused;
};

const u32 MOST_POINTWISE_JOBS = 4;
const u32 POINTWISE_BLOCK = 1024;  // elements of a block

struct Pointwise {
    u64 step;
    PointwiseJob jobs[MOST_POINTWISE_JOBS];
    u32 count;
    u32 unused;
};

__device__ __forceinline__ float rotated(const PointwiseJob &job, const float *x, u32 at, u32 column, u32 position) {
    u32 i = column % job.head_dim, half = job.rotary_dim / 2;
    if (i >= job.rotary_dim) return x[at];
    bool first = i < half;
    float2 turn = ((const float2 *)job.y)[(u64)position * half + (first ? i : i - half)];
    return turned(x[at], x[first ? at + half : at - half], turn, first);
}

__device__ __forceinline__ void pointwise_one(const PointwiseJob &job, u32 at, u32 first_position) {
    const float *x = (const float *)job.x, *y = (const float *)job.y;
    u32 column = at % job.width, position = first_position + at / job.width;
    float value;
    if (job.operation == ROPE) value = rotated(job, x, at, column, position);
    else value = applied(job.operation, x[at], y ? y[job.operation == BIAS ? column : at] : job.number);
    if (job.operation != STORE) ((float *)job.out)[at] = value;
    if (job.next == MULTIPLY) ((float *)job.next_out)[at] = value * ((const float *)job.next_y)[at];
    if (job.next == STORE) ((float *)job.next_out)[(u64)position * job.width + column] = value;
}

// Four neighbours of one row at once: most of the time goes into moving them.
__device__ __forceinline__ void pointwise_four(const PointwiseJob &job, u32 at, u32 first_position) {
    u32 column = at % job.width, position = first_position + at / job.width;
    float4 x = *(const float4 *)((const float *)job.x + at), y = make_float4(job.number, job.number, job.number, job.number), value;
    if (job.y) y = *(const float4 *)((const float *)job.y + (job.operation == BIAS ? column : at));
    value.x = applied(job.operation, x.x, y.x);
    value.y = applied(job.operation, x.y, y.y);
    value.z = applied(job.operation, x.z, y.z);
    value.w = applied(job.operation, x.w, y.w);
    if (job.operation != STORE) *(float4 *)((float *)job.out + at) = value;
    if (job.next == MULTIPLY) {
        float4 z = *(const float4 *)((const float *)job.next_y + at);
        *(float4 *)((float *)job.next_out + at) = make_float4(value.x * z.x, value.y * z.y, value.z * z.z, value.w * z.w);
    }
    if (job.next == STORE) *(float4 *)((float *)job.next_out + (u64)position * job.width + column) = value;
}

extern "C" __global__ void __launch_bounds__(256) pointwise(const __grid_constant__ Pointwise p) {
    successors_may_begin();
    u32 number = 0;
    while (number + 1 < p.count && blockIdx.x >= p.jobs[number + 1].first_block) number++;
    const PointwiseJob &job = p.jobs[number];
    u32 first_position = ((const Step *)p.step)->first_position + job.first_row;
    predecessors_are_done();
    u32 start = (blockIdx.x - job.first_block) * POINTWISE_BLOCK, count = job.rows * job.width;
    if (job.width % 4 == 0 && job.operation != ROPE) {
        u32 at = start + threadIdx.x * 4;
        if (at < count) pointwise_four(job, at, first_position);
        return;
    }
    for (u32 at = start + threadIdx.x; at < min(start + POINTWISE_BLOCK, count); at += blockDim.x) pointwise_one(job, at, first_position);
}

// ---- Activations in the type of a product's operands

struct Cast {
    u64 x;
    u64 out;
    u64 count;
    u32 compute_type;
    u32 unused;
};

extern "C" __global__ void cast(const __grid_constant__ Cast p) {
    in_turn();
    u64 index = ((u64)blockIdx.x * blockDim.x + threadIdx.x) * 4;
    if (index >= p.count) return;
    float4 values = *(const float4 *)((const float *)p.x + index);
    u32 first = rounded_pair(values.x, values.y, p.compute_type);
    *(uint2 *)((u16 *)p.out + index) = make_uint2(first, rounded_pair(values.z, values.w, p.compute_type));
}
