// What operations on single elements compute.

enum PointwiseOperation { NOTHING, ADD, MULTIPLY, BIAS, SCALE, SOFT_CAP, SILU, GELU_TANH, GELU_ERF, GELU_QUICK, ROPE, STORE };

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

// RoPE: of the two elements that turn together, `x` is the first or the other. `turn` is the cosine and the sine.
__device__ __forceinline__ float turned(float x, float other, float2 turn, bool first) {
    return first ? x * turn.x - other * turn.y : other * turn.y + x * turn.x;
}
