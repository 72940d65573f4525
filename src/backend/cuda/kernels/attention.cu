// Attention over the cache, in f32. Rows of scores and probabilities are ragged: `[heads, visible keys]`.

struct Attention {
    u64 step;
    u64 q;
    u64 keys;
    u64 values;
    u64 scores;
    u64 probabilities;
    u64 context;
    u32 heads;
    u32 kv_heads;
    u32 head_dim;
    u32 first_row;
    u32 rows;
    float scale;
    u32 stages;  // of the kernel for few rows: which of the three it makes
    u32 unused;
};

enum Stage { SCORES = 1, SOFTMAX = 2, CONTEXT = 4 };

struct Head {
    u32 visible;   // keys that the row sees
    u64 ragged;    // where its scores begin
    u32 kv_offset; // where its key head begins in a cached row
    u32 kv_width;
};

__device__ __forceinline__ Head head_of(const Attention &p, u32 row, u32 head) {
    u32 first = ((const Step *)p.step)->first_position + p.first_row + 1;
    Head h;
    h.visible = first + row;
    h.ragged = ragged_offset(p.heads, row, first) + (u64)head * h.visible;
    h.kv_offset = head / (p.heads / p.kv_heads) * p.head_dim;
    h.kv_width = p.kv_heads * p.head_dim;
    return h;
}

__device__ __forceinline__ void softmax(const float *scores, float *out, u32 count, float *scratch) {
    float largest = -INFINITY;
    for (u32 i = threadIdx.x; i < count; i += blockDim.x) largest = fmaxf(largest, scores[i]);
    largest = block_max(largest, scratch);
    float sum = 0.0f;
    for (u32 i = threadIdx.x; i < count; i += blockDim.x) sum += expf(scores[i] - largest);
    sum = block_sum(sum, scratch);
    for (u32 i = threadIdx.x; i < count; i += blockDim.x) out[i] = expf(scores[i] - largest) / sum;
}

// Few rows: one block a head of a row makes all three, and writes them.
extern "C" __global__ void __launch_bounds__(1024) attention_few(const __grid_constant__ Attention p) {
    __shared__ float scratch[32];
    __shared__ float sums[1024];
    u32 head = blockIdx.x, row = blockIdx.y, warp = threadIdx.x >> 5, lane = threadIdx.x & 31u, warps = blockDim.x >> 5;
    Head h = head_of(p, row, head);
    float *scores = (float *)p.scores + h.ragged, *probabilities = (float *)p.probabilities + h.ragged;
    u64 in_row = ((u64)row * p.heads + head) * p.head_dim;
    if (p.stages & SCORES) {
        const float *q = (const float *)p.q + in_row, *keys = (const float *)p.keys + h.kv_offset;
        for (u32 key = warp; key < h.visible; key += warps) {
            const float *k = keys + (u64)key * h.kv_width;
            // In f64: scores of hundreds or thousands would lose to rounding what softmax then makes a factor of.
            double sum = 0.0;
            for (u32 i = lane; i < p.head_dim; i += 32) sum = __fma_rn((double)q[i], (double)k[i], sum);
            sum = warp_sum(sum);
            if (lane == 0) scores[key] = (float)(sum * p.scale);
        }
        __syncthreads();
    }
    if (p.stages & SOFTMAX) {
        softmax(scores, probabilities, h.visible, scratch);
        __syncthreads();
    }
    if (p.stages & CONTEXT) {
        const float *values = (const float *)p.values + h.kv_offset;
        u32 lanes = min(p.head_dim, blockDim.x), groups = blockDim.x / lanes, group = threadIdx.x / lanes;
        for (u32 base = 0; base < p.head_dim; base += lanes) {
            u32 i = base + threadIdx.x % lanes;
            float sum = 0.0f;
            if (group < groups && i < p.head_dim) {
#pragma unroll 8
                for (u32 key = group; key < h.visible; key += groups) {
                    sum = __fmaf_rn(probabilities[key], values[(u64)key * h.kv_width + i], sum);
                }
            }
            __syncthreads();
            sums[threadIdx.x] = sum;
            __syncthreads();
            if (group == 0 && i < p.head_dim) {
                for (u32 other = 1; other < groups; other++) sum += sums[other * lanes + threadIdx.x];
                ((float *)p.context)[in_row + i] = sum;
            }
        }
    }
}

const u32 SQUARE = 64;  // rows and columns of a tile; a thread makes 4 x 4 of it
const u32 DEPTH = 32;

// Scores of many rows: a tile of rows and keys a block.
extern "C" __global__ void __launch_bounds__(256) attention_scores(const __grid_constant__ Attention p) {
    __shared__ float qs[DEPTH][SQUARE + 1], ks[DEPTH][SQUARE + 1];
    u32 first_key = blockIdx.x * SQUARE, first_row = blockIdx.y * SQUARE, head = blockIdx.z;
    u32 last_row = min(first_row + SQUARE, p.rows) - 1;
    if (first_key >= head_of(p, last_row, head).visible) return;
    Head top = head_of(p, 0, head);
    u32 most = head_of(p, p.rows - 1, head).visible;
    const float *q = (const float *)p.q + (u64)head * p.head_dim, *keys = (const float *)p.keys + top.kv_offset;
    u32 x = threadIdx.x % 16, y = threadIdx.x / 16;
    float sums[4][4] = {};
    for (u32 depth = 0; depth < p.head_dim; depth += DEPTH) {
        for (u32 i = threadIdx.x; i < SQUARE * DEPTH; i += 256) {
            u32 d = i % DEPTH, r = i / DEPTH;
            bool inside = depth + d < p.head_dim;
            qs[d][r] = inside && first_row + r < p.rows ? q[(u64)(first_row + r) * p.heads * p.head_dim + depth + d] : 0.0f;
            ks[d][r] = inside && first_key + r < most ? keys[(u64)(first_key + r) * top.kv_width + depth + d] : 0.0f;
        }
        __syncthreads();
#pragma unroll 8
        for (u32 d = 0; d < DEPTH; d++) {
#pragma unroll
            for (u32 i = 0; i < 4; i++)
#pragma unroll
                for (u32 j = 0; j < 4; j++) sums[i][j] = __fmaf_rn(qs[d][y + 16 * i], ks[d][x + 16 * j], sums[i][j]);
        }
        __syncthreads();
    }
    for (u32 i = 0; i < 4; i++) {
        u32 row = first_row + y + 16 * i;
        if (row >= p.rows) continue;
        Head h = head_of(p, row, head);
        for (u32 j = 0; j < 4; j++) {
            u32 key = first_key + x + 16 * j;
            if (key < h.visible) ((float *)p.scores)[h.ragged + key] = sums[i][j] * p.scale;
        }
    }
}

// Softmax of many rows: a block a head of a row.
extern "C" __global__ void __launch_bounds__(128) attention_softmax(const __grid_constant__ Attention p) {
    __shared__ float scratch[32];
    Head h = head_of(p, blockIdx.x, blockIdx.y);
    softmax((const float *)p.scores + h.ragged, (float *)p.probabilities + h.ragged, h.visible, scratch);
}

// Context of many rows: a tile of rows and elements of a head a block.
extern "C" __global__ void __launch_bounds__(256) attention_context(const __grid_constant__ Attention p) {
    __shared__ float ps[DEPTH][SQUARE + 1], vs[DEPTH][SQUARE + 1];
    u32 first_element = blockIdx.x * SQUARE, first_row = blockIdx.y * SQUARE, head = blockIdx.z;
    u32 last_row = min(first_row + SQUARE, p.rows) - 1;
    Head bottom = head_of(p, last_row, head);
    const float *values = (const float *)p.values + bottom.kv_offset;
    u32 x = threadIdx.x % 16, y = threadIdx.x / 16;
    float sums[4][4] = {};
    for (u32 depth = 0; depth < bottom.visible; depth += DEPTH) {
        for (u32 i = threadIdx.x; i < SQUARE * DEPTH; i += 256) {
            u32 d = i % DEPTH, r = i / DEPTH, row = first_row + r;
            float probability = 0.0f;
            if (row < p.rows) {
                Head h = head_of(p, row, head);
                if (depth + d < h.visible) probability = ((const float *)p.probabilities)[h.ragged + depth + d];
            }
            ps[d][r] = probability;
            u32 e = i % SQUARE, key = depth + i / SQUARE;
            bool inside = key < bottom.visible && first_element + e < p.head_dim;
            vs[i / SQUARE][e] = inside ? values[(u64)key * bottom.kv_width + first_element + e] : 0.0f;
        }
        __syncthreads();
#pragma unroll 8
        for (u32 d = 0; d < DEPTH; d++) {
#pragma unroll
            for (u32 i = 0; i < 4; i++)
#pragma unroll
                for (u32 j = 0; j < 4; j++) sums[i][j] = __fmaf_rn(ps[d][y + 16 * i], vs[d][x + 16 * j], sums[i][j]);
        }
        __syncthreads();
    }
    for (u32 i = 0; i < 4; i++) {
        u32 row = first_row + y + 16 * i;
        if (row >= p.rows) continue;
        for (u32 j = 0; j < 4; j++) {
            u32 element = first_element + x + 16 * j;
            if (element < p.head_dim) ((float *)p.context)[((u64)row * p.heads + head) * p.head_dim + element] = sums[i][j];
        }
    }
}
