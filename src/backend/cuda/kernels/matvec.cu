// Products of a few rows with a weight, on the stored blocks. One launch makes several products of one input, and what
// follows each of them element by element; it writes every tensor in between.

// What follows the newest result of a Q4_K product.
struct After {
    u64 out;        // of the operation; 0 where there is none
    u64 turns;      // of ROPE: cosines and sines by position
    u64 cache;      // by position; where 0, nothing is stored
    u32 operation;  // MULTIPLY: with what followed the product in front
    u32 head_dim;   // of ROPE
    u32 first_row;
    u32 unused;
};

struct MatvecJob {
    u64 weight;
    u64 x;
    u64 y;
    u64 bias;     // where 0, the product has none
    u64 biased;
    u64 addend;   // where 0, nothing is added
    u64 sum;
    After after;
    u32 rows;     // outputs
    u32 columns;  // inputs
    u32 first_block;
    u32 unused;
};

const u32 MOST_MATVEC_JOBS = 4;

struct Matvec {
    MatvecJob jobs[MOST_MATVEC_JOBS];
    u32 count;
    u32 slab;    // of Q4_K products, as everything below: see there
    Norm norm;   // what makes x; where its own x is 0, x is there
    u64 step;
    u32 paired;  // whether a block makes the same tile of both products, one after the other
    u32 unused;
};

const u32 WARPS = 4;     // of a block
const u32 TILE = 8;      // outputs of a block
const u32 SLICE = 1024;  // elements of x that a warp holds in registers at a time, 32 a lane

// Adds the products of one slice of x with `rows` rows of a weight to `sums`. A lane takes four elements at a time, every
// 128 elements.
template <int TYPE>
__device__ __forceinline__ void add_slice(const u8 *weight, u64 row_length, u32 rows, const float *x, u32 slice, u32 columns, u32 lane,
                                          float *sums) {
    float4 held[SLICE / 128];
#pragma unroll
    for (u32 i = 0; i < SLICE / 128; i++) {
        u32 at = slice * SLICE + i * 128 + lane * 4;
        if (at < columns) held[i] = *(const float4 *)(x + at);
    }
#pragma unroll
    for (u32 i = 0; i < SLICE / 128; i++) {
        u32 at = slice * SLICE + i * 128 + lane * 4;
        if (at >= columns) continue;
#pragma unroll
        for (u32 r = 0; r < TILE; r++) {
            float4 w = four<TYPE>(weight + (r < rows ? r : 0) * row_length, at);
            float sum = __fmaf_rn(w.x, held[i].x, sums[r]);
            sum = __fmaf_rn(w.y, held[i].y, sum);
            sum = __fmaf_rn(w.z, held[i].z, sum);
            sums[r] = __fmaf_rn(w.w, held[i].w, sum);
        }
    }
}

// Sums TILE values over a warp; the sum of value v ends in lane 4 v.
__device__ __forceinline__ float tile_sum(float *v, u32 lane) {
#pragma unroll
    for (u32 half = TILE / 2; half > 0; half >>= 1) {
        u32 width = half * 4;
        bool upper = (lane & width) != 0;
#pragma unroll
        for (u32 i = 0; i < half; i++) {
            float keep = upper ? v[i + half] : v[i], give = upper ? v[i] : v[i + half];
            v[i] = keep + __shfl_xor_sync(0xFFFFFFFFu, give, width);
        }
    }
    float sum = v[0];
    sum += __shfl_xor_sync(0xFFFFFFFFu, sum, 2);
    return sum + __shfl_xor_sync(0xFFFFFFFFu, sum, 1);
}

// What is added to output `output` of the row that blockIdx.y says: to be asked for before the product is there.
struct Addends {
    float bias;
    float addend;
};

__device__ __forceinline__ Addends addends(const MatvecJob &job, u32 output) {
    Addends read = {0.0f, 0.0f};
    if (job.bias) read.bias = ((const float *)job.bias)[output];
    if (job.addend) read.addend = ((const float *)job.addend)[(u64)blockIdx.y * job.rows + output];
    return read;
}

// Writes that output, and what follows from it; the newest result.
__device__ __forceinline__ float write_outputs(const MatvecJob &job, u32 output, float y, const Addends &read) {
    u64 at = (u64)blockIdx.y * job.rows + output;
    ((float *)job.y)[at] = y;
    if (job.bias) {
        y += read.bias;
        ((float *)job.biased)[at] = y;
    }
    if (job.addend) {
        y += read.addend;
        ((float *)job.sum)[at] = y;
    }
    return y;
}

// Products of x with `rows` rows of a weight, TILE at most; thread i gets that of row i.
template <int TYPE>
__device__ __forceinline__ float tile_product(const u8 *weight, const float *x, u32 rows, u32 columns) {
    __shared__ float partial[WARPS][TILE];
    u32 warp = threadIdx.x >> 5, lane = threadIdx.x & 31u;
    float sums[TILE];
#pragma unroll
    for (u32 r = 0; r < TILE; r++) sums[r] = 0.0f;
    u32 slices = (columns + SLICE - 1) / SLICE;
    for (u32 slice = warp; slice < slices; slice += WARPS) {
        add_slice<TYPE>(weight, row_bytes<TYPE>(columns), rows, x, slice, columns, lane, sums);
    }
    float sum = tile_sum(sums, lane);
    if (lane % 4 == 0) partial[warp][lane / 4] = sum;
    __syncthreads();
    if (threadIdx.x >= rows) return 0.0f;
    float y = partial[0][threadIdx.x];
    for (u32 other = 1; other < WARPS; other++) y += partial[other][threadIdx.x];
    return y;
}

template <int TYPE>
__device__ __forceinline__ void matvec(const Matvec &p) {
    u32 number = 0;
    while (number + 1 < p.count && blockIdx.x >= p.jobs[number + 1].first_block) number++;
    const MatvecJob &job = p.jobs[number];
    u32 first = (blockIdx.x - job.first_block) * TILE, rows = min(TILE, job.rows - first);
    const u8 *weight = (const u8 *)job.weight + first * row_bytes<TYPE>(job.columns);
    const float *x = (const float *)job.x + (u64)blockIdx.y * job.columns;
    Addends read;
    if (threadIdx.x < rows) read = addends(job, first + threadIdx.x);
    float y = tile_product<TYPE>(weight, x, rows, job.columns);
    if (threadIdx.x < rows) write_outputs(job, first + threadIdx.x, y, read);
}

#define MATVEC(name, TYPE) \
    extern "C" __global__ void __launch_bounds__(WARPS * 32, 4) matvec_##name(const __grid_constant__ Matvec p) { in_turn(); matvec<TYPE>(p); }
