// Norms, and operations element by element.

struct Norm {
    u64 x;
    u64 gain;
    u64 bias;  // where 0, the norm is an RMS norm
    u64 out;
    u32 width;
    float epsilon;
};

// One block a row. Sums are f64; every other step is rounded to f32.
extern "C" __global__ void __launch_bounds__(1024) normalise(const __grid_constant__ Norm p) {
    __shared__ double scratch[32];
    const float *x = (const float *)p.x + (u64)blockIdx.x * p.width;
    const float *gain = (const float *)p.gain, *bias = (const float *)p.bias;
    float *out = (float *)p.out + (u64)blockIdx.x * p.width;
    float mean = 0.0f;
    if (bias) {
        double sum = 0.0;
        for (u32 i = threadIdx.x; i < p.width; i += blockDim.x) sum += x[i];
        mean = (float)(block_sum(sum, scratch) / p.width);
    }
    double squares = 0.0;
    for (u32 i = threadIdx.x; i < p.width; i += blockDim.x) {
        float distance = x[i] - mean;
        squares += distance * distance;
    }
    float scale = 1.0f / sqrtf((float)(block_sum(squares, scratch) / p.width) + p.epsilon);
    for (u32 i = threadIdx.x; i < p.width; i += blockDim.x) {
        float value = (x[i] - mean) * scale * gain[i];
        out[i] = bias ? value + bias[i] : value;
    }
}

enum PointwiseOperation { NOTHING, ADD, MULTIPLY, BIAS, SILU, GELU_TANH, ROPE, STORE };

// One operation, and one more on its result where `next` says so: both results are written.
struct PointwiseJob {
    u64 x;
    u64 y;         // the other operand, a bias, or a table of cosines and sines by position
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
};

const u32 MOST_POINTWISE_JOBS = 4;
const u32 POINTWISE_BLOCK = 1024;  // elements of a block

struct Pointwise {
    u64 step;
    PointwiseJob jobs[MOST_POINTWISE_JOBS];
    u32 count;
    u32 unused;
};

__device__ __forceinline__ float turned(const PointwiseJob &job, const float *x, u64 at, u32 column, u32 position) {
    u32 i = column % job.head_dim, half = job.rotary_dim / 2;
    if (i >= job.rotary_dim) return x[at];
    bool first = i < half;
    float2 turn = ((const float2 *)job.y)[(u64)position * half + (first ? i : i - half)];
    float other = x[first ? at + half : at - half];
    return first ? x[at] * turn.x - other * turn.y : other * turn.y + x[at] * turn.x;
}

__device__ __forceinline__ float gelu_tanh(float x) {
    const float root = 0.79788456080286535588f;  // sqrt(2 / pi)
    return 0.5f * x * (1.0f + tanhf(root * (x + 0.044715f * x * x * x)));
}

extern "C" __global__ void pointwise(const __grid_constant__ Pointwise p) {
    u32 number = 0;
    while (number + 1 < p.count && blockIdx.x >= p.jobs[number + 1].first_block) number++;
    const PointwiseJob &job = p.jobs[number];
    u32 first_position = ((const Step *)p.step)->first_position + job.first_row;
    const float *x = (const float *)job.x, *y = (const float *)job.y;
    u64 start = (u64)(blockIdx.x - job.first_block) * POINTWISE_BLOCK, count = (u64)job.rows * job.width;
    for (u32 i = threadIdx.x; i < POINTWISE_BLOCK; i += blockDim.x) {
        u64 at = start + i;
        if (at >= count) return;
        u32 column = (u32)(at % job.width), position = first_position + (u32)(at / job.width);
        float value = x[at];
        switch (job.operation) {
            case ADD: value += y[at]; break;
            case MULTIPLY: value *= y[at]; break;
            case BIAS: value += y[column]; break;
            case SILU: value = value / (1.0f + expf(-value)); break;
            case GELU_TANH: value = gelu_tanh(value); break;
            case ROPE: value = turned(job, x, at, column, position); break;
            default: break;
        }
        if (job.operation != STORE) ((float *)job.out)[at] = value;
        if (job.next == MULTIPLY) ((float *)job.next_out)[at] = value * ((const float *)job.next_y)[at];
        if (job.next == STORE) ((float *)job.next_out)[(u64)position * job.width + column] = value;
    }
}
