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

// Output `output` of the row that blockIdx.y says, and what follows from it.
__device__ __forceinline__ void write_outputs(const MatvecJob &job, u32 output, float y) {
    u64 at = (u64)blockIdx.y * job.rows + output;
    ((float *)job.y)[at] = y;
    if (job.bias) {
        y += ((const float *)job.bias)[output];
        ((float *)job.biased)[at] = y;
    }
    if (job.addend) ((float *)job.sum)[at] = y + ((const float *)job.addend)[at];
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
        add_slice<TYPE>(weight, row_length, rows, x, slice, job.columns, lane, sums);
    }
    float sum = tile_sum(sums, lane);
    if (lane % 4 == 0) partial[warp][lane / 4] = sum;
    __syncthreads();
    u32 output = threadIdx.x;
    if (output >= rows) return;
    float y = partial[0][output];
    for (u32 other = 1; other < WARPS; other++) y += partial[other][output];
    write_outputs(job, first + output, y);
}

#define MATVEC(name, TYPE) \
    extern "C" __global__ void __launch_bounds__(WARPS * 32, 4) matvec_##name(const __grid_constant__ Matvec p) { in_turn(); matvec<TYPE>(p); }

MATVEC(f32, F32)
MATVEC(f16, F16)
MATVEC(bf16, BF16)
MATVEC(q8_0, Q8_0)
MATVEC(q5_k, Q5_K)
MATVEC(q6_k, Q6_K)

// ---- Q4_K

// Q4_K is what large models are stored in, so its products are made for speed. A block is as wide as x: each thread keeps
// 64 consecutive elements of it, a quarter of a super-block, and goes through tiles of rows. The rows of the next tiles
// are on their way to shared memory meanwhile; each warp copies just what it reads, and waits for nobody else.
//
// A nibble q in the lowest 20 bits of a word, masked where it stands, is a subnormal float: q * 2^(4 n - 149). Held x are
// scaled by 2^(80 - 4 n), so that products are normal numbers; that is exact for |x| from 2^-57 to 2^47, and saves every
// conversion.
const u32 Q4_K_TILE = 4;
const u32 Q4_K_HELD = 64;
const u32 Q4_K_THREADS = 320;
const u32 Q4_K_DEPTH = 3;  // tiles in shared memory

__device__ __forceinline__ void copy_async(void *to, const void *from) {
#if __CUDA_ARCH__ >= 800
    u32 address = (u32)__cvta_generic_to_shared(to);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(from));
#else
    *(uint4 *)to = *(const uint4 *)from;
#endif
}

__device__ __forceinline__ void copies_begun() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;");
#endif
}

// Waits for all but the newest Q4_K_DEPTH - 2 groups of copies.
__device__ __forceinline__ void copies_done() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(Q4_K_DEPTH - 2));
#endif
    __syncwarp();
}

struct Q4KHeld {
    float x[Q4_K_HELD];
    float low, high;  // sums of the first and the last 32

    __device__ __forceinline__ void load(const float *from, bool inside) {
        low = high = 0.0f;
#pragma unroll
        for (u32 i = 0; i < Q4_K_HELD / 4; i++) {
            float4 v = inside ? *(const float4 *)(from + i * 4) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            x[i * 4] = v.x;
            x[i * 4 + 1] = v.y;
            x[i * 4 + 2] = v.z;
            x[i * 4 + 3] = v.w;
        }
#pragma unroll
        for (u32 i = 0; i < Q4_K_HELD; i++) {
            if (i < 32) low += x[i];
            else high += x[i];
            u32 nibble = i % 4 * 2 + i / 32, place = nibble < 5 ? nibble : nibble - 3;
            x[i] *= __uint_as_float((127 + 80 - 4 * place) << 23);
        }
    }

    // With the quarter of a super-block that thread `quarter` of it holds.
    __device__ __forceinline__ float product(const uint4 *block, u32 quarter) const {
        uint4 head = block[0], left = block[1 + quarter * 2], right = block[2 + quarter * 2];
        u32 words[8] = {left.x, left.y, left.z, left.w, right.x, right.y, right.z, right.w};
        float first = 0.0f, second = 0.0f;
#pragma unroll
        for (u32 i = 0; i < 8; i++) {
            u32 word = words[i], upper = word >> 12;
            first = __fmaf_rn(__uint_as_float(word & 0xFu), x[i * 4], first);
            second = __fmaf_rn(__uint_as_float(word & 0xF0u), x[32 + i * 4], second);
            first = __fmaf_rn(__uint_as_float(word & 0xF00u), x[i * 4 + 1], first);
            second = __fmaf_rn(__uint_as_float(word & 0xF000u), x[32 + i * 4 + 1], second);
            first = __fmaf_rn(__uint_as_float(word & 0xF0000u), x[i * 4 + 2], first);
            second = __fmaf_rn(__uint_as_float(upper & 0xF00u), x[32 + i * 4 + 2], second);
            first = __fmaf_rn(__uint_as_float(upper & 0xF000u), x[i * 4 + 3], first);
            second = __fmaf_rn(__uint_as_float(upper & 0xF0000u), x[32 + i * 4 + 3], second);
        }
        // Scale and minimum of both sub-blocks, a byte each.
        u32 shift = quarter % 2 * 16, scales = (head.y >> shift) & 0x3F3Fu, minima = (head.z >> shift) & 0x3F3Fu;
        if (quarter >= 2) {
            u32 mixed = head.w >> shift;
            scales = (mixed & 0x0F0Fu) | (((head.y >> shift) & 0xC0C0u) >> 2);
            minima = ((mixed >> 4) & 0x0F0Fu) | (((head.z >> shift) & 0xC0C0u) >> 2);
        }
        const float unit = 590295810358705651712.0f;  // 2^69
        float quant = (float)(scales & 255u) * (first * unit) + (float)(scales >> 8) * (second * unit);
        float offset = (float)(minima & 255u) * low + (float)(minima >> 8) * high;
        return half_to_float((u16)head.x) * quant - half_to_float((u16)(head.x >> 16)) * offset;
    }
};

// Where a tile is.
struct Q4KPlace {
    const MatvecJob *job;
    u32 first;
    u32 rows;
};

__device__ __forceinline__ Q4KPlace q4_k_place(const Matvec &p, u32 tile) {
    u32 number = 0;
    while (number + 1 < p.count && tile >= p.jobs[number + 1].first_block) number++;
    const MatvecJob *job = &p.jobs[number];
    u32 first = (tile - job->first_block) * Q4_K_TILE;
    return {job, first, min(Q4_K_TILE, job->rows - first)};
}

__device__ __forceinline__ void q4_k_finish(const Q4KPlace &place, const float *sums, float *partial) {
    u32 warp = threadIdx.x >> 5, lane = threadIdx.x & 31u, warps = blockDim.x >> 5;
    // Four values over a warp: the sum of value v ends in lane 8 v.
    bool upper = (lane & 16u) != 0;
    float a = upper ? sums[2] : sums[0], b = upper ? sums[3] : sums[1];
    a += __shfl_xor_sync(0xFFFFFFFFu, upper ? sums[0] : sums[2], 16);
    b += __shfl_xor_sync(0xFFFFFFFFu, upper ? sums[1] : sums[3], 16);
    upper = (lane & 8u) != 0;
    float sum = upper ? b : a;
    sum += __shfl_xor_sync(0xFFFFFFFFu, upper ? a : b, 8);
    for (u32 width = 4; width > 0; width >>= 1) sum += __shfl_xor_sync(0xFFFFFFFFu, sum, width);
    if (lane % 8 == 0) partial[warp * Q4_K_TILE + lane / 8] = sum;
    __syncthreads();
    u32 output = threadIdx.x;
    if (output >= place.rows) return;
    float y = partial[output];
    for (u32 other = 1; other < warps; other++) y += partial[other * Q4_K_TILE + output];
    write_outputs(*place.job, place.first + output, y);
}

// What a block does one after the other: every tile that is its own, and of each tile every slab of x.
struct Q4KTurns {
    u32 count;
    u32 slabs;
    u32 quarters;
    u64 row_length;

    __device__ __forceinline__ Q4KPlace place(const Matvec &p, u32 turn) const {
        return q4_k_place(p, blockIdx.x + turn / slabs * gridDim.x);
    }

    // The quarter of a row that this thread holds in a turn.
    __device__ __forceinline__ u32 quarter(u32 turn) const {
        return turn % slabs * blockDim.x + threadIdx.x;
    }

    // Begins to copy the rows of a turn.
    __device__ __forceinline__ void fetch(const Matvec &p, u32 turn, u8 *stage, u32 stage_row) const {
        u32 at = quarter(turn);
        if (turn < count && at < quarters) {
            Q4KPlace where = place(p, turn);
            const u8 *from = (const u8 *)where.job->weight + where.first * row_length + at / 4 * 144;
            u8 *to = stage + threadIdx.x / 4 * 144;
            u32 start = 16 + at % 4 * 32;
#pragma unroll
            for (u32 r = 0; r < Q4_K_TILE; r++) {
                if (r < where.rows) {
                    if (at % 4 == 0) copy_async(to, from);
                    copy_async(to + start, from + start);
                    copy_async(to + start + 16, from + start + 16);
                }
                from += row_length;
                to += stage_row;
            }
        }
        copies_begun();
    }
};

extern "C" __global__ void __launch_bounds__(Q4_K_THREADS, 1) matvec_q4_k(const __grid_constant__ Matvec p) {
    successors_may_begin();
    // Two halves take turns: a warp may begin the next tile while another still adds this one up.
    __shared__ float partial[2][Q4_K_THREADS / 32 * Q4_K_TILE];
    extern __shared__ __align__(16) u8 ring[];
    const MatvecJob &last = p.jobs[p.count - 1];
    Q4KTurns turns;
    turns.quarters = last.columns / Q4_K_HELD;
    turns.slabs = (turns.quarters + blockDim.x - 1) / blockDim.x;
    turns.row_length = row_bytes<Q4_K>(last.columns);
    u32 tiles = last.first_block + (last.rows + Q4_K_TILE - 1) / Q4_K_TILE;
    turns.count = (tiles - blockIdx.x + gridDim.x - 1) / gridDim.x * turns.slabs;
    u32 stage_row = blockDim.x / 4 * 144, stage_bytes = stage_row * Q4_K_TILE;
    for (u32 turn = 0; turn + 1 < Q4_K_DEPTH; turn++) turns.fetch(p, turn, ring + turn * stage_bytes, stage_row);
    // Weights do not depend on what runs before; x does.
    predecessors_are_done();
    const float *x = (const float *)last.x + (u64)blockIdx.y * last.columns;
    Q4KHeld held;
    held.load(x + threadIdx.x * Q4_K_HELD, threadIdx.x < turns.quarters);
    float sums[Q4_K_TILE];
    for (u32 turn = 0; turn < turns.count; turn++) {
        copies_done();
        u32 ahead = turn + Q4_K_DEPTH - 1;
        turns.fetch(p, ahead, ring + ahead % Q4_K_DEPTH * stage_bytes, stage_row);
        u32 slab = turn % turns.slabs, at = turns.quarter(turn);
        bool inside = at < turns.quarters;
        if (turns.slabs > 1 && turn > 0) held.load(x + at * Q4_K_HELD, inside);
        const u8 *block = ring + turn % Q4_K_DEPTH * stage_bytes + threadIdx.x / 4 * 144;
#pragma unroll
        for (u32 r = 0; r < Q4_K_TILE; r++) {
            float sum = inside ? held.product((const uint4 *)(block + r * stage_row), at % 4) : 0.0f;
            sums[r] = slab == 0 ? sum : sums[r] + sum;
        }
        if (slab + 1 == turns.slabs) q4_k_finish(turns.place(p, turn), sums, partial[turn / turns.slabs % 2]);
    }
}
