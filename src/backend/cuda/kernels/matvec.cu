// Products of a few rows with a weight, on the stored blocks. One launch makes several products of one input, and what
// follows each of them element by element; it writes every tensor in between.

struct MatvecJob {
    u64 weight;
    u64 x;
    u64 y;
    u64 bias;     // where 0, the product has none
    u64 biased;
    u64 addend;   // where 0, nothing is added
    u64 sum;
    u32 rows;     // outputs
    u32 columns;  // inputs
    u32 first_block;
    u32 unused;
};

const u32 MOST_MATVEC_JOBS = 4;

struct Matvec {
    MatvecJob jobs[MOST_MATVEC_JOBS];
    u32 count;
    u32 unused;
};

const u32 WARPS = 4;     // of a block
const u32 TILE = 8;      // outputs of a block
const u32 SLICE = 1024;  // elements of x that a warp holds in registers at a time, 32 a lane

// Adds the products of one slice of x with `rows` rows of a weight to `sums`. A lane takes four elements at a time, every
// 128 elements. `staged` is room for a slice, one for each warp.
template <int TYPE>
__device__ __forceinline__ void add_slice(const u8 *weight, u64 row_length, u32 rows, const float *x, u32 slice, u32 columns, u32 lane,
                                          float *staged, float *sums) {
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

// Q4_K is what large models are stored in, so its products are made for speed: eight lanes share a super-block, each takes
// 16 bytes of quants, 16 elements of one sub-block and 16 of the next. A nibble q becomes the float 1 + q / 16 by placing
// its bits (a conversion has a quarter of the rate), and sum(x) is taken off again at the end.
struct Q4KRows {
    uint4 heads[TILE / 2];
    uint4 quants[TILE / 2];

    __device__ __forceinline__ void fetch(const u8 *block, u64 row_length, u32 first, u32 rows, u32 lane) {
#pragma unroll
        for (u32 r = 0; r < TILE / 2; r++) {
            const u8 *row = block + (first + r < rows ? first + r : 0) * row_length;
            heads[r] = __ldg((const uint4 *)row);
            quants[r] = __ldg((const uint4 *)(row + 16 + lane % 8 * 16));
        }
    }

    __device__ __forceinline__ void add(const float *low_x, const float *high_x, float low_sum, float high_sum, u32 lane, float *sums) const {
        u32 chunk = lane % 8 / 2, shift = chunk % 2 * 16;
#pragma unroll
        for (u32 r = 0; r < TILE / 2; r++) {
            float low = 0.0f, high = 0.0f;
            u32 words[4] = {quants[r].x, quants[r].y, quants[r].z, quants[r].w};
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                u32 a = ((words[i] << 3) & 0x78787878u) | 0x80808080u;
                u32 b = ((words[i] >> 1) & 0x78787878u) | 0x80808080u;
#pragma unroll
                for (u32 j = 0; j < 4; j++) {
                    low = __fmaf_rn(__uint_as_float(__byte_perm(a, 0x3F000000u, 0x7044u | (j << 8))), low_x[i * 4 + j], low);
                    high = __fmaf_rn(__uint_as_float(__byte_perm(b, 0x3F000000u, 0x7044u | (j << 8))), high_x[i * 4 + j], high);
                }
            }
            // Scale and minimum of both sub-blocks, a byte each.
            u32 scales = (heads[r].y >> shift) & 0x3F3Fu, minima = (heads[r].z >> shift) & 0x3F3Fu;
            if (chunk >= 2) {
                u32 mixed = heads[r].w >> shift;
                scales = (mixed & 0x0F0Fu) | (((heads[r].y >> shift) & 0xC0C0u) >> 2);
                minima = ((mixed >> 4) & 0x0F0Fu) | (((heads[r].z >> shift) & 0xC0C0u) >> 2);
            }
            float d = half_to_float((u16)heads[r].x), dmin = half_to_float((u16)(heads[r].x >> 16));
            float quant = (float)(scales & 255u) * (low - low_sum) + (float)(scales >> 8) * (high - high_sum);
            float offset = (float)(minima & 255u) * low_sum + (float)(minima >> 8) * high_sum;
            sums[r] += d * 16.0f * quant - dmin * offset;
        }
    }
};

// Where element `e` of a slice is staged: so that the runs of 16 that eight lanes read lie in different banks.
__device__ __forceinline__ u32 staged_at(u32 e) {
    return e + e / 64 * 4;
}

template <>
__device__ __forceinline__ void add_slice<Q4_K>(const u8 *weight, u64 row_length, u32 rows, const float *x, u32 slice, u32 columns,
                                                u32 lane, float *staged, float *sums) {
    u32 super = slice * (SLICE / 256) + lane / 8;
    bool inside = super < columns / 256;
    const u8 *block = weight + (u64)(inside ? super : 0) * 144;
    Q4KRows first, second;
    first.fetch(block, row_length, 0, rows, lane);
    __syncwarp();
#pragma unroll
    for (u32 i = 0; i < SLICE / 128; i++) {
        u32 within = i * 128 + lane * 4, at = slice * SLICE + within;
        float4 values = at < columns ? *(const float4 *)(x + at) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        *(float4 *)(staged + staged_at(within)) = values;
    }
    __syncwarp();
    second.fetch(block, row_length, TILE / 2, rows, lane);
    float low_x[16], high_x[16], low_sum = 0.0f, high_sum = 0.0f;
    u32 start = lane / 8 * 256 + lane % 8 / 2 * 64 + lane % 2 * 16;
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        *(float4 *)(low_x + i * 4) = *(const float4 *)(staged + staged_at(start + i * 4));
        *(float4 *)(high_x + i * 4) = *(const float4 *)(staged + staged_at(start + 32 + i * 4));
    }
#pragma unroll
    for (u32 i = 0; i < 16; i++) {
        low_sum += low_x[i];
        high_sum += high_x[i];
    }
    if (!inside) return;
    first.add(low_x, high_x, low_sum, high_sum, lane, sums);
    second.add(low_x, high_x, low_sum, high_sum, lane, sums + TILE / 2);
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

template <int TYPE>
__device__ __forceinline__ void matvec(const Matvec &p) {
    __shared__ float partial[WARPS][TILE];
    __shared__ __align__(16) float staged[WARPS][SLICE + SLICE / 16];
    u32 number = 0;
    while (number + 1 < p.count && blockIdx.x >= p.jobs[number + 1].first_block) number++;
    const MatvecJob &job = p.jobs[number];
    u32 first = (blockIdx.x - job.first_block) * TILE, rows = min(TILE, job.rows - first);
    u32 warp = threadIdx.x >> 5, lane = threadIdx.x & 31u;
    u64 row_length = row_bytes<TYPE>(job.columns);
    const u8 *weight = (const u8 *)job.weight + first * row_length;
    const float *x = (const float *)job.x + (u64)blockIdx.y * job.columns;
    float sums[TILE];
#pragma unroll
    for (u32 r = 0; r < TILE; r++) sums[r] = 0.0f;
    u32 slices = (job.columns + SLICE - 1) / SLICE;
    for (u32 slice = warp; slice < slices; slice += WARPS) {
        add_slice<TYPE>(weight, row_length, rows, x, slice, job.columns, lane, staged[warp], sums);
    }
    float sum = tile_sum(sums, lane);
    if (lane % 4 == 0) partial[warp][lane / 4] = sum;
    __syncthreads();
    u32 output = threadIdx.x;
    if (output >= rows) return;
    float y = partial[0][output];
    for (u32 other = 1; other < WARPS; other++) y += partial[other][output];
    u64 at = (u64)blockIdx.y * job.rows + first + output;
    ((float *)job.y)[at] = y;
    if (job.bias) {
        y += ((const float *)job.bias)[first + output];
        ((float *)job.biased)[at] = y;
    }
    if (job.addend) ((float *)job.sum)[at] = y + ((const float *)job.addend)[at];
}

#define MATVEC(name, TYPE) \
    extern "C" __global__ void __launch_bounds__(WARPS * 32, 4) matvec_##name(const __grid_constant__ Matvec p) { matvec<TYPE>(p); }

MATVEC(f32, F32)
MATVEC(f16, F16)
MATVEC(bf16, BF16)
MATVEC(q8_0, Q8_0)
MATVEC(q4_k, Q4_K)
MATVEC(q5_k, Q5_K)
MATVEC(q6_k, Q6_K)
