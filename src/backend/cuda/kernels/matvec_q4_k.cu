// Products of a few rows with a Q4_K weight. That is what large models are stored in, so they are made for speed.
//
// Tensor cores multiply bytes exactly. x becomes integers of 31 bits, scaled by a power of two from the largest of its
// super-block; their four signed digits to the base of 256 are the columns 0, 2, 4, 6 of one operand, and the quants of 16
// rows, as they stand in memory but for a mask, are the other. Products with the 6-bit scales and minima are integers
// too, and no sum is rounded before that of a super-block. What x loses is below 2^-30 of the largest of 256 elements,
// less than sums in f32 do.
//
// A block goes from tile to tile. Its warps share out the pairs of super-blocks of a row; each copies what it reads to
// shared memory well ahead, and waits for others at the end of a tile alone.

const u32 Q4_K_TILE = 16;   // rows
const u32 Q4_K_WARPS = 16;  // of a block at most
const u32 Q4_K_DEPTH = 3;   // stages of a warp: one is read, the others are on their way
const u32 Q4_K_NORMED = 4;  // super-blocks of a warp, at most, of a row that is normed here
const u32 Q4_K_BLOCK = 144;
const u32 Q4_K_PAIR = 2 * Q4_K_BLOCK;
const u32 Q4_K_STAGE = Q4_K_TILE * Q4_K_PAIR;

// x of a super-block.
struct Q4KInput {
    // Digit `n` of the elements 8 t .. 8 t + 8 of the sub-blocks 2 c and 2 c + 1 at [c][n][t].
    uint4 digits[4][4][4];
    // Digit `n` of a 32nd of the sum of sub-block j at [n][j].
    u8 sums[4][8];
    float unit;  // of the highest digit; not a number where an element is not finite
    u32 unused[3];
};

#if __CUDA_ARCH__ >= 800

__device__ __forceinline__ void copy_async(void *to, const void *from) {
    u32 address = (u32)__cvta_generic_to_shared(to);
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(address), "l"(from) : "memory");
}

__device__ __forceinline__ void copies_begun() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}

// Waits for this thread's copies, all but the newest Q4_K_DEPTH - 2 groups.
__device__ __forceinline__ void copies_done() {
    asm volatile("cp.async.wait_group %0;" ::"n"(Q4_K_DEPTH - 2) : "memory");
}

// Products of 16 rows of 32 quants with 8 columns of signed bytes. Lane 4 g + t gives four bytes each: quants 4 t of row
// g and of row g + 8, quants 4 t + 16 of both, elements 4 t and 4 t + 16 of column g. It gets column 2 t of both rows.
__device__ __forceinline__ int2 multiply_32(u32 a, u32 a8, u32 a16, u32 a24, u32 b, u32 b16) {
    int low, low_odd, high, high_odd;
    asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %10, %10, %10};"
        : "=r"(low), "=r"(low_odd), "=r"(high), "=r"(high_odd)
        : "r"(a), "r"(a8), "r"(a16), "r"(a24), "r"(b), "r"(b16), "r"(0));
    return make_int2(low, high);
}

// The same of 16.
__device__ __forceinline__ int2 multiply_16(u32 a, u32 a8, u32 b) {
    int low, low_odd, high, high_odd;
    asm("mma.sync.aligned.m16n8k16.row.col.s32.u8.s8.s32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%7, %7, %7, %7};"
        : "=r"(low), "=r"(low_odd), "=r"(high), "=r"(high_odd)
        : "r"(a), "r"(a8), "r"(b), "r"(0));
    return make_int2(low, high);
}

// The four digits of a number, a byte each: -128 .. 127, and the highest whatever is left.
__device__ __forceinline__ u32 digits(int number) {
    return ((u32)number + 0x00808080u) ^ 0x00808080u;
}

// Byte n of four words to word n.
__device__ __forceinline__ void transpose(u32 *words) {
    u32 low = __byte_perm(words[0], words[1], 0x5140), high = __byte_perm(words[0], words[1], 0x7362);
    u32 next_low = __byte_perm(words[2], words[3], 0x5140), next_high = __byte_perm(words[2], words[3], 0x7362);
    words[0] = __byte_perm(low, next_low, 0x5410);
    words[1] = __byte_perm(low, next_low, 0x7632);
    words[2] = __byte_perm(high, next_high, 0x5410);
    words[3] = __byte_perm(high, next_high, 0x7632);
}

// A warp makes the input of one super-block; a lane takes eight elements.
__device__ __forceinline__ void q4_k_prepare(const float *values, Q4KInput &input, u32 lane) {
    u32 largest = 0;
#pragma unroll
    for (u32 i = 0; i < 8; i++) largest = max(largest, __float_as_uint(values[i]) & 0x7FFFFFFFu);
    largest = __reduce_max_sync(0xFFFFFFFFu, largest);
    // The largest is scaled to 2^29 .. 2^30. The scale is finite where all elements are tiny.
    u32 exponent = min(max(largest >> 23, 30u), 254u);
    float scale = __uint_as_float((283 - exponent) << 23);
    u32 words[8];
    int upper = 0, lower = 0;
#pragma unroll
    for (u32 i = 0; i < 8; i++) {
        int number = __float2int_rn(values[i] * scale);
        upper += number >> 5;
        lower += number & 31;
        words[i] = digits(number);
    }
    transpose(words);
    transpose(words + 4);
    u32 sub = lane / 4, t = lane % 4;
#pragma unroll
    for (u32 n = 0; n < 4; n++) ((uint2 *)&input.digits[sub / 2][n][t])[sub % 2] = make_uint2(words[n], words[4 + n]);
#pragma unroll
    for (u32 width = 1; width < 4; width <<= 1) {
        upper += __shfl_xor_sync(0xFFFFFFFFu, upper, width);
        lower += __shfl_xor_sync(0xFFFFFFFFu, lower, width);
    }
    input.sums[t][sub] = (u8)(digits(upper + ((lower + 16) >> 5)) >> (t * 8));
    if (lane == 0) input.unit = __uint_as_float(largest < 0x7F800000u ? (exponent - 5) << 23 : 0x7FFFFFFFu);
}

// A lane's elements of a super-block.
__device__ __forceinline__ void q4_k_load(const float *x, u32 block, u32 lane, float *values) {
    const float4 *from = (const float4 *)(x + block * 256) + lane * 2;
    *(float4 *)values = from[0];
    *(float4 *)(values + 4) = from[1];
}

const u32 Q4_K_ASKED = 4;  // super-blocks whose x a warp asks for at once

// The inputs of the super-blocks `first` .. `end`, to which all warps come.
__device__ __forceinline__ void q4_k_prepare_all(const float *x, u32 first, u32 end, Q4KInput *inputs, u32 lane) {
    u32 warps = blockDim.x >> 5;
    for (u32 base = first + (threadIdx.x >> 5); base < end; base += warps * Q4_K_ASKED) {
        float __align__(16) held[Q4_K_ASKED][8];
#pragma unroll
        for (u32 i = 0; i < Q4_K_ASKED; i++) q4_k_load(x, min(base + i * warps, end - 1), lane, held[i]);
#pragma unroll
        for (u32 i = 0; i < Q4_K_ASKED; i++) {
            u32 at = base + i * warps;
            if (at < end) q4_k_prepare(held[i], inputs[at - first], lane);
        }
    }
}

// The inputs of a row that is the norm of another. Every block makes it whole, which costs less than to wait for a launch that
// does; the first block writes it. Its bits are those of a norm that is launched alone.
struct Q4KNorm {
    float __align__(16) gains[Q4_K_NORMED][8];

    __device__ __forceinline__ void load(const Norm &p, u32 warp, u32 warps, u32 lane) {
        u32 blocks = p.width / 256;
#pragma unroll
        for (u32 i = 0; i < Q4_K_NORMED; i++) {
            u32 block = warp + i * warps;
            if (block < blocks) q4_k_load((const float *)p.gain, block, lane, gains[i]);
        }
    }

    // By all warps; `segments` has an element for each super-block.
    __device__ __forceinline__ void prepare(const Norm &p, Q4KInput *inputs, double *segments, u32 warp, u32 warps, u32 lane) const {
        u32 blocks = p.width / 256;
        const float *x = (const float *)p.x + (u64)blockIdx.y * p.width;
        float *out = (float *)p.out + (u64)blockIdx.y * p.width;
        float __align__(16) held[Q4_K_NORMED][8];
#pragma unroll
        for (u32 i = 0; i < Q4_K_NORMED; i++) {
            if (warp + i * warps < blocks) q4_k_load(x, warp + i * warps, lane, held[i]);
        }
#pragma unroll
        for (u32 i = 0; i < Q4_K_NORMED; i++) {
            if (warp + i * warps >= blocks) continue;
            double sum = segment_sum(held[i], EIGHT, true, 0.0f);
            if (lane == 0) segments[warp + i * warps] = sum;
        }
        __syncthreads();
        double squares = 0.0;
        for (u32 block = 0; block < blocks; block++) squares += segments[block];
        float scale = norm_scale(p, squares);
#pragma unroll
        for (u32 i = 0; i < Q4_K_NORMED; i++) {
            u32 block = warp + i * warps;
            if (block >= blocks) continue;
#pragma unroll
            for (u32 j = 0; j < 8; j++) held[i][j] = held[i][j] * scale * gain_of(p, gains[i][j]);
            q4_k_prepare(held[i], inputs[block], lane);
            if (blockIdx.x > 0) continue;
            float4 *to = (float4 *)(out + block * 256) + lane * 2;
            to[0] = *(const float4 *)held[i];
            to[1] = *(const float4 *)(held[i] + 4);
        }
    }
};

// Scales of the sub-blocks 0 .. 4 and 4 .. 8, a byte each.
__device__ __forceinline__ uint2 q4_k_scales(const uint4 &head) {
    return make_uint2(head.y & 0x3F3F3F3Fu, (head.w & 0x0F0F0F0Fu) | ((head.y >> 2) & 0x30303030u));
}

// Minima of four sub-blocks, the upper or the lower ones.
__device__ __forceinline__ u32 q4_k_minima(const uint4 &head, bool upper) {
    u32 mixed = ((head.w >> 4) & 0x0F0F0F0Fu) | ((head.z >> 2) & 0x30303030u);
    return upper ? mixed : head.z & 0x3F3F3F3Fu;
}

// What a super-block adds to a row, in units of its input.
__device__ __forceinline__ float q4_k_value(const uint4 &head, int quants, int minima) {
    float least = half_to_float((u16)(head.x >> 16)) * (float)(minima * 32);
    return __fmaf_rn(half_to_float((u16)head.x), (float)quants, -least);
}

// Adds the products of one super-block of 16 rows, of which lane 4 g + t gets digit t of the rows g and g + 8.
__device__ __forceinline__ void q4_k_multiply(const u8 *tile, const Q4KInput &input, u32 lane, float2 &sums) {
    u32 g = lane / 4, t = lane % 4, n = g / 2;  // odd columns are not read: what they hold is of no matter
    const u8 *row = tile + g * Q4_K_PAIR, *row8 = row + 8 * Q4_K_PAIR;
    uint2 words[4], words8[4];
    uint4 head = *(const uint4 *)row, head8 = *(const uint4 *)row8;
#pragma unroll
    for (u32 c = 0; c < 4; c++) {
        words[c] = *(const uint2 *)(row + 16 + c * 32 + t * 8);
        words8[c] = *(const uint2 *)(row8 + 16 + c * 32 + t * 8);
    }
    uint2 scales = q4_k_scales(head), scales8 = q4_k_scales(head8);
    int quants = 0, quants8 = 0;
#pragma unroll
    for (u32 c = 0; c < 4; c++) {
        uint4 x = input.digits[c][n][t];
#pragma unroll
        for (u32 half = 0; half < 2; half++) {
            u32 shift = half * 4, mask = 0x0F0F0F0Fu;
            int2 made = multiply_32((words[c].x >> shift) & mask, (words8[c].x >> shift) & mask,
                                    (words[c].y >> shift) & mask, (words8[c].y >> shift) & mask,
                                    half ? x.z : x.x, half ? x.w : x.y);
            u32 byte = 0x4440 + c % 2 * 2 + half;
            quants += made.x * (int)__byte_perm(c < 2 ? scales.x : scales.y, 0, byte);
            quants8 += made.y * (int)__byte_perm(c < 2 ? scales8.x : scales8.y, 0, byte);
        }
    }
    // Eight minima are half of what is multiplied at once: the other elements are zero.
    u32 x = t < 2 ? *(const u32 *)&input.sums[n][t * 4] : 0;
    int2 minima = multiply_16(q4_k_minima(head, t == 1), q4_k_minima(head8, t == 1), x);
    sums.x = __fmaf_rn(q4_k_value(head, quants, minima.x), input.unit, sums.x);
    sums.y = __fmaf_rn(q4_k_value(head8, quants8, minima.y), input.unit, sums.y);
}

// A tile of a product. A block takes every gridDim.x-th place; of paired products it makes the tile of both there.
struct Q4KTile {
    u32 place;
    u32 second;  // of paired products: which

    __device__ __forceinline__ void next(const Matvec &p) {
        second = p.paired && !second;
        if (!second) place += gridDim.x;
    }

    __device__ __forceinline__ const MatvecJob &job(const Matvec &p) const {
        if (p.paired) return p.jobs[second];
        u32 number = 0;
        while (number + 1 < p.count && place >= p.jobs[number + 1].first_block) number++;
        return p.jobs[number];
    }
};

__device__ __forceinline__ u32 q4_k_places(const Matvec &p) {
    const MatvecJob &last = p.jobs[p.count - 1];
    return last.first_block + (last.rows + Q4_K_TILE - 1) / Q4_K_TILE;
}

// The rows of a tile: eight, and the eight behind those, or for RoPE those that turn with them.
struct Q4KRows {
    u32 first;
    u32 apart;  // from the first eight to the others

    __device__ __forceinline__ Q4KRows(const MatvecJob &job, u32 place) {
        u32 group = job.after.operation == ROPE ? job.after.head_dim : Q4_K_TILE, start = (place - job.first_block) * Q4_K_TILE;
        first = start / group * group + start % group / 2;
        apart = group / 2;
    }

    __device__ __forceinline__ u32 at(u32 lane) const { return first + lane % 8 + lane / 8 * apart; }
};

// The copies of a warp: of every tile of its block, every pair that is its own.
struct Q4KCopies {
    u32 places;      // of all blocks
    u32 items;       // pairs of a row that are this warp's
    u32 warps;
    u64 row_length;
    u32 offsets[Q4_K_STAGE / 512];  // of what this lane copies, from the tile's pair on, where its rows are neighbours
    u32 others;  // a bit for each of those that is of the second eight rows
    u8 *stages;
    // What is next:
    Q4KTile tile;
    u32 item;
    u32 stage;
    const u8 *from;
    u64 left;   // bytes of the weight from there
    u32 apart;  // bytes more to the second eight rows

    __device__ __forceinline__ void find(const Matvec &p, u32 warp) {
        if (tile.place >= places) return;
        const MatvecJob &job = tile.job(p);
        Q4KRows rows(job, tile.place);
        u64 start = rows.first * row_length + warp * Q4_K_PAIR;
        apart = (rows.apart - 8) * (u32)row_length;
        from = (const u8 *)job.weight + start;
        left = job.rows * row_length - start;
    }

    // Begins the next stage, if there is one. What rows of the tile or super-blocks of the pair there are not is copied
    // from what follows, and left out at the weight's end.
    __device__ __forceinline__ void begin(const Matvec &p, u32 warp, u32 lane) {
        if (tile.place < places) {
            u64 skipped = (u64)(item * warps) * Q4_K_PAIR;
            u32 inside = (u32)min(left - skipped, (u64)0xFFFFFFFFu);
            u8 *to = stages + stage * Q4_K_STAGE + lane * 16;
#pragma unroll
            for (u32 i = 0; i < Q4_K_STAGE / 512; i++) {
                u32 offset = offsets[i] + (others >> i & 1 ? apart : 0);
                if (offset < inside) copy_async(to + i * 512, from + skipped + offset);
            }
            stage = stage + 1 < Q4_K_DEPTH ? stage + 1 : 0;
            if (++item == items) {
                item = 0;
                tile.next(p);
                find(p, warp);
            }
        }
        copies_begun();
    }
};

// Puts what a warp has of a tile beside what the others have, for one of them to add up.
__device__ __forceinline__ void q4_k_put(float2 sums, float *partial, u32 lane) {
    float digit = __uint_as_float((103 + lane % 4 * 8) << 23);  // 256^(t - 3)
    sums.x *= digit;
    sums.y *= digit;
#pragma unroll
    for (u32 width = 1; width < 4; width <<= 1) {
        sums.x += __shfl_xor_sync(0xFFFFFFFFu, sums.x, width);
        sums.y += __shfl_xor_sync(0xFFFFFFFFu, sums.y, width);
    }
    if (lane % 4 == 0) {
        partial[lane / 4] = sums.x;
        partial[lane / 4 + 8] = sums.y;
    }
}

// The turn of an output, to be asked for before the product is there.
__device__ __forceinline__ float2 q4_k_turn(const MatvecJob &job, u32 output, u32 position) {
    u32 half = job.after.head_dim / 2;
    return ((const float2 *)job.after.turns)[(u64)position * half + output % half];
}

// Goes on from the newest result of a product, in the sixteen lanes that have a tile's. `held` is what followed the
// product in front.
__device__ __forceinline__ float q4_k_follow(const MatvecJob &job, u32 output, u32 position, float value, float2 turn, float held, u32 lane) {
    const After &after = job.after;
    if (after.operation == ROPE) value = turned(value, __shfl_xor_sync(0xFFFFu, value, 8), turn, lane < 8);
    else value = applied(after.operation, value, held);
    if (after.out) ((float *)after.out)[(u64)blockIdx.y * job.rows + output] = value;
    if (after.cache) ((float *)after.cache)[(u64)position * job.rows + output] = value;
    return value;
}

// `p.slab` is of how many pairs of each warp shared memory holds the inputs. Where those are not all, they are made
// anew for every tile.
extern "C" __global__ void __launch_bounds__(Q4_K_WARPS * 32, 1) matvec_q4_k(const __grid_constant__ Matvec p) {
    successors_may_begin();
    // Two halves take turns: a warp may end the next tile while another still adds this one up.
    __shared__ float partial[2][Q4_K_WARPS][Q4_K_TILE];
    __shared__ double segments[Q4_K_WARPS * Q4_K_NORMED];
    extern __shared__ __align__(16) u8 shared[];
    u32 warp = threadIdx.x >> 5, lane = threadIdx.x & 31u, warps = blockDim.x >> 5;
    const MatvecJob &last = p.jobs[p.count - 1];
    u32 blocks = last.columns / 256, pairs = (blocks + 1) / 2;
    Q4KInput *inputs = (Q4KInput *)(shared + warps * Q4_K_DEPTH * Q4_K_STAGE);
    Q4KCopies copies;
    copies.places = q4_k_places(p);
    copies.items = (pairs - warp + warps - 1) / warps;
    copies.warps = warps;
    copies.row_length = row_bytes<Q4_K>(last.columns);
    copies.others = 0;
#pragma unroll
    for (u32 i = 0; i < Q4_K_STAGE / 512; i++) {
        u32 piece = i * 32 + lane, row = piece / (Q4_K_PAIR / 16);
        copies.offsets[i] = row * (u32)copies.row_length + piece % (Q4_K_PAIR / 16) * 16;
        copies.others |= (row / 8) << i;
    }
    copies.stages = shared + warp * Q4_K_DEPTH * Q4_K_STAGE;
    copies.tile = {blockIdx.x, 0};
    copies.item = copies.stage = 0;
    copies.find(p, warp);
    // Weights do not depend on what runs before; x does. Gains are few, and would arrive behind all copies.
    Q4KNorm norm;
    if (p.norm.x) norm.load(p.norm, warp, warps, lane);
    for (u32 i = 0; i + 1 < Q4_K_DEPTH; i++) copies.begin(p, warp, lane);
    predecessors_are_done();
    if (p.norm.x) norm.prepare(p.norm, inputs, segments, warp, warps, lane);
    const float *x = (const float *)last.x + (u64)blockIdx.y * last.columns;
    u32 most = (pairs + warps - 1) / warps, stage = 0, first_position = p.step ? ((const Step *)p.step)->first_position : 0, round = 0;
    float held = 0.0f;
    for (Q4KTile tile = {blockIdx.x, 0}; tile.place < copies.places; tile.next(p), round++) {
        const MatvecJob &job = tile.job(p);
        u32 output = Q4KRows(job, tile.place).at(lane), position = first_position + job.after.first_row + blockIdx.y;
        // In turn one of the warps adds up, while the others go on.
        bool finishes = warp == (p.paired ? round / 2 : round) % warps && lane < Q4_K_TILE && output < job.rows;
        Addends read;
        float2 turn = make_float2(1.0f, 0.0f);
        if (finishes) read = addends(job, output);
        if (finishes && job.after.operation == ROPE) turn = q4_k_turn(job, output, position);
        float2 sums = make_float2(0.0f, 0.0f);
        for (u32 begin = 0; begin < most; begin += p.slab) {
            u32 first = begin * warps * 2, end = min(blocks, first + p.slab * warps * 2);
            if (round == 0 || p.slab < most) {
                __syncthreads();
                if (!p.norm.x) q4_k_prepare_all(x, first, end, inputs, lane);
                __syncthreads();
            }
            for (u32 item = begin; item < min(begin + p.slab, copies.items); item++) {
                copies_done();
                __syncwarp();
                copies.begin(p, warp, lane);
                u32 at = (item * warps + warp) * 2;
                const u8 *rows = copies.stages + stage * Q4_K_STAGE;
                stage = stage + 1 < Q4_K_DEPTH ? stage + 1 : 0;
                q4_k_multiply(rows, inputs[at - first], lane, sums);
                if (at + 1 < blocks) q4_k_multiply(rows + Q4_K_BLOCK, inputs[at + 1 - first], lane, sums);
            }
        }
        float (*of_tile)[Q4_K_TILE] = partial[round % 2];
        q4_k_put(sums, of_tile[warp], lane);
        __syncthreads();
        if (!finishes) continue;
        float y = of_tile[0][lane];
        for (u32 other = 1; other < warps; other++) y += of_tile[other][lane];
        held = q4_k_follow(job, output, position, write_outputs(job, output, y, read), turn, held, lane);
    }
}

#else

// Tensor cores of older cards do not multiply bytes in this shape.
MATVEC(q4_k, Q4_K)

#endif
