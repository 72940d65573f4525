// Operations element by element.

enum PointwiseOperation { NOTHING, ADD, MULTIPLY, BIAS, SCALE, SOFT_CAP, SILU, GELU_TANH, GELU_ERF, GELU_QUICK, ROPE, STORE };

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
    u32 first_block;  // of what goes with products: its first counter
    float number;  // a factor, or a cap
    u32 sources;   // of what goes with products: a bit for each whose result it reads
};

const u32 MOST_POINTWISE_JOBS = 4;
const u32 POINTWISE_BLOCK = 1024;  // elements of a block

struct Pointwise {
    u64 step;
    PointwiseJob jobs[MOST_POINTWISE_JOBS];
    u32 count;
    u32 unused;
};

__device__ __forceinline__ float turned(const PointwiseJob &job, const float *x, u32 at, u32 column, u32 position) {
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

__device__ __forceinline__ float applied(u32 operation, float x, float y) {
    switch (operation) {
        case ADD:
        case BIAS: return x + y;
        case MULTIPLY:
        case SCALE: return x * y;
        case SOFT_CAP: return soft_cap(x, y);
        case SILU: return x / (1.0f + expf(-x));
        case GELU_TANH: return gelu_tanh(x);
        case GELU_ERF: return 0.5f * x * (1.0f + erff(x * 0.70710678118654752440f));  // 1 / sqrt(2)
        case GELU_QUICK: return x / (1.0f + expf(-1.702f * x));
        default: return x;
    }
}

__device__ __forceinline__ void pointwise_one(const PointwiseJob &job, u32 at, u32 first_position) {
    const float *x = (const float *)job.x, *y = (const float *)job.y;
    u32 column = at % job.width, position = first_position + at / job.width;
    float value;
    if (job.operation == ROPE) value = turned(job, x, at, column, position);
    else value = applied(job.operation, x[at], y ? y[job.operation == BIAS ? column : at] : job.number);
    if (job.operation != STORE) ((float *)job.out)[at] = value;
    if (job.next == MULTIPLY) ((float *)job.next_out)[at] = value * ((const float *)job.next_y)[at];
    if (job.next == STORE) ((float *)job.next_out)[(u64)position * job.width + column] = value;
}
