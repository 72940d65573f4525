// Layers with experts: a router's choice, and what is made of the experts' rows. A slot is a place among the chosen of a
// row.

// ---- The router: probabilities, the chosen, their weights

struct Router {
    u64 x;        // logits, or probabilities
    u64 chosen;   // numbers of experts, in ascending order
    u64 out;
    u32 experts;
    u32 used;     // slots of a row
    u32 normalised;
    u32 unused;
};

// Softmax of a whole row, the largest taken away first; added in f64. A block a row.
extern "C" __global__ void __launch_bounds__(128) row_softmax(const __grid_constant__ Router p) {
    in_turn();
    __shared__ float largest_of[32];
    __shared__ double sums[32];
    const float *x = (const float *)p.x + (u64)blockIdx.x * p.experts;
    float *out = (float *)p.out + (u64)blockIdx.x * p.experts, largest = -INFINITY;
    for (u32 i = threadIdx.x; i < p.experts; i += blockDim.x) largest = fmaxf(largest, x[i]);
    largest = block_max(largest, largest_of);
    double sum = 0.0;
    for (u32 i = threadIdx.x; i < p.experts; i += blockDim.x) sum += (double)expf(x[i] - largest);
    sum = block_sum(sum, sums);
    for (u32 i = threadIdx.x; i < p.experts; i += blockDim.x) out[i] = (float)((double)expf(x[i] - largest) / sum);
}

// Whether element `a` stands before `b` among the largest: of equals the lowest number, and NaN behind everything.
__device__ __forceinline__ bool before(float x_a, u32 a, float x_b, u32 b) {
    bool nan_a = x_a != x_a, nan_b = x_b != x_b;
    if (nan_a || nan_b) return nan_a == nan_b ? a < b : nan_b;
    return x_a > x_b || (x_a == x_b && a < b);
}

// The numbers of the `used` largest of a row, in ascending order. A warp a row: an element is chosen where fewer than
// `used` others stand before it.
extern "C" __global__ void __launch_bounds__(32) top_k(const __grid_constant__ Router p) {
    in_turn();
    const float *x = (const float *)p.x + (u64)blockIdx.x * p.experts;
    float *out = (float *)p.out + (u64)blockIdx.x * p.used;
    u32 lane = threadIdx.x, filled = 0;
    for (u32 base = 0; base < p.experts; base += 32) {
        u32 number = base + lane, better = p.used;
        if (number < p.experts) {
            better = 0;
            for (u32 other = 0; other < p.experts; other++) better += before(x[other], other, x[number], number);
        }
        u32 chosen = __ballot_sync(0xFFFFFFFFu, better < p.used);
        if (better < p.used) out[filled + __popc(chosen & ((1u << lane) - 1u))] = (float)number;
        filled += __popc(chosen);
    }
}

// The probabilities of the chosen, divided by their sum where `normalised`. A warp a row; every lane adds the same sum.
extern "C" __global__ void __launch_bounds__(32) expert_weights(const __grid_constant__ Router p) {
    in_turn();
    const float *x = (const float *)p.x + (u64)blockIdx.x * p.experts, *chosen = (const float *)p.chosen + (u64)blockIdx.x * p.used;
    float *out = (float *)p.out + (u64)blockIdx.x * p.used, sum = 0.0f;
    for (u32 slot = 0; slot < p.used; slot++) sum += x[expert_of(chosen[slot], p.experts)];
    for (u32 slot = threadIdx.x; slot < p.used; slot += 32) {
        float weight = x[expert_of(chosen[slot], p.experts)];
        out[slot] = p.normalised ? weight / sum : weight;
    }
}

// ---- What is made of the slots, and of an expert that all rows share

const u32 MOST_SLOTS = 8;

struct ExpertSum {
    u64 weights;
    u64 slots[MOST_SLOTS];
    u64 out;
    u32 width;
    u32 used;
    u32 first;  // slot of slots[0]; where that is not 0, the sum so far is in `out`
    u32 count;
};

// `w[0] * x_0 + w[1] * x_1 + ...`, each product rounded.
extern "C" __global__ void __launch_bounds__(256) expert_sum(const __grid_constant__ ExpertSum p) {
    in_turn();
    u64 row = blockIdx.x;
    u32 column = blockIdx.y * blockDim.x + threadIdx.x;
    if (column >= p.width) return;
    const float *weights = (const float *)p.weights + row * p.used + p.first;
    float *out = (float *)p.out + row * p.width + column, sum = p.first == 0 ? 0.0f : *out;
    for (u32 i = 0; i < p.count; i++) {
        float product = weights[i] * ((const float *)p.slots[i])[row * p.width + column];
        sum = p.first + i == 0 ? product : sum + product;
    }
    *out = sum;
}

struct Gate {
    u64 x;
    u64 gated;  // rows that the gate reads
    u64 gate;
    u64 out;
    u32 width;  // of x
    u32 columns;
};

// `x * sigmoid(gated . gate)`; products are rounded to f32 and added in f64. A block a row.
extern "C" __global__ void __launch_bounds__(256) gate(const __grid_constant__ Gate p) {
    in_turn();
    __shared__ double sums[32];
    const float *gated = (const float *)p.gated + (u64)blockIdx.x * p.columns, *gate = (const float *)p.gate;
    double sum = 0.0;
    for (u32 i = threadIdx.x; i < p.columns; i += blockDim.x) sum += (double)(gated[i] * gate[i]);
    float factor = 1.0f / (1.0f + expf(-(float)block_sum(sum, sums)));
    u64 first = (u64)blockIdx.x * p.width;
    for (u32 i = threadIdx.x; i < p.width; i += blockDim.x) ((float *)p.out)[first + i] = ((const float *)p.x)[first + i] * factor;
}
