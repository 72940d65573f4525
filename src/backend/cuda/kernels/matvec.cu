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

// A lane's 32 elements of a slice: four at a time, every 128 elements.
template <int TYPE>
struct Lane {
    float x[32];

    __device__ __forceinline__ void load(const float *from, u32 slice, u32 columns, u32 lane) {
#pragma unroll
        for (u32 i = 0; i < 8; i++) {
            u32 at = slice * SLICE + i * 128 + lane * 4;
#pragma unroll
            for (u32 j = 0; j < 4; j++) x[i * 4 + j] = at + j < columns ? from[at + j] : 0.0f;
        }
    }

    template <u32 ROWS>
    __device__ __forceinline__ void add(const u8 *weight, u64 row_length, u32 rows, u32 slice, u32 columns, u32 lane, float *sums) {
#pragma unroll
        for (u32 i = 0; i < 8; i++) {
            u32 at = slice * SLICE + i * 128 + lane * 4;
            if (at >= columns) continue;
#pragma unroll
            for (u32 r = 0; r < ROWS; r++) {
                if (r >= rows) continue;
                float4 w = four<TYPE>(weight + r * row_length, at);
                float sum = __fmaf_rn(w.x, x[i * 4], sums[r]);
                sum = __fmaf_rn(w.y, x[i * 4 + 1], sum);
                sum = __fmaf_rn(w.z, x[i * 4 + 2], sum);
                sums[r] = __fmaf_rn(w.w, x[i * 4 + 3], sum);
            }
        }
    }
};

// Q4_K is what large models are stored in, so its dot is made for speed: eight lanes share a super-block, each takes 16
// bytes of quants, 16 elements of one sub-block and 16 of the next. A nibble q becomes the float 1 + q / 16 by placing
// its bits (no conversion, which has a quarter of the rate), and sum(x) is taken off again at the end.
template <>
struct Lane<Q4_K> {
    float x[32];
    float sum_low, sum_high;

    __device__ __forceinline__ void load(const float *from, u32 slice, u32 columns, u32 lane) {
        u32 at = slice * SLICE + lane / 8 * 256 + lane % 8 / 2 * 64 + lane % 2 * 16;
        bool inside = at < columns;
        sum_low = sum_high = 0.0f;
#pragma unroll
        for (u32 i = 0; i < 16; i++) {
            x[i] = inside ? from[at + i] : 0.0f;
            x[16 + i] = inside ? from[at + 32 + i] : 0.0f;
            sum_low += x[i];
            sum_high += x[16 + i];
        }
    }

    template <u32 ROWS>
    __device__ __forceinline__ void add(const u8 *weight, u64 row_length, u32 rows, u32 slice, u32 columns, u32 lane, float *sums) {
        u32 super = slice * (SLICE / 256) + lane / 8;
        if (super >= columns / 256) return;
        const u8 *block = weight + (u64)super * 144;
        uint4 heads[ROWS], quants[ROWS];
#pragma unroll
        for (u32 r = 0; r < ROWS; r++) {
            u64 row = (u64)(r < rows ? r : 0) * row_length;
            heads[r] = __ldg((const uint4 *)(block + row));
            quants[r] = __ldg((const uint4 *)(block + row + 16 + lane % 8 * 16));
        }
        u32 chunk = lane % 8 / 2, shift = chunk % 2 * 16;
#pragma unroll
        for (u32 r = 0; r < ROWS; r++) {
            float low = 0.0f, high = 0.0f;
            u32 words[4] = {quants[r].x, quants[r].y, quants[r].z, quants[r].w};
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                u32 a = ((words[i] << 3) & 0x78787878u) | 0x80808080u;
                u32 b = ((words[i] >> 1) & 0x78787878u) | 0x80808080u;
#pragma unroll
                for (u32 j = 0; j < 4; j++) {
                    low = __fmaf_rn(__uint_as_float(__byte_perm(a, 0x3F000000u, 0x7044u | (j << 8))), x[i * 4 + j], low);
                    high = __fmaf_rn(__uint_as_float(__byte_perm(b, 0x3F000000u, 0x7044u | (j << 8))), x[16 + i * 4 + j], high);
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
            float quant = (float)(scales & 255u) * (low - sum_low) + (float)(scales >> 8) * (high - sum_high);
            float offset = (float)(minima & 255u) * sum_low + (float)(minima >> 8) * sum_high;
            sums[r] += d * 16.0f * quant - dmin * offset;
        }
    }
};

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
        Lane<TYPE> held;
        held.load(x, slice, job.columns, lane);
        held.template add<TILE / 2>(weight, row_length, rows, slice, job.columns, lane, sums);
        if (rows > TILE / 2) {
            held.template add<TILE / 2>(weight + TILE / 2 * row_length, row_length, rows - TILE / 2, slice, job.columns, lane, sums + TILE / 2);
        }
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
    extern "C" __global__ void __launch_bounds__(WARPS * 32) matvec_##name(const __grid_constant__ Matvec p) { matvec<TYPE>(p); }

MATVEC(f32, F32)
MATVEC(f16, F16)
MATVEC(bf16, BF16)
MATVEC(q8_0, Q8_0)
MATVEC(q4_k, Q4_K)
MATVEC(q5_k, Q5_K)
MATVEC(q6_k, Q6_K)
