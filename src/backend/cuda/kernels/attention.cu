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
    u32 window;  // keys that a row sees at most
    float cap;   // of scores; 0 for none
    u32 parts;   // of few rows: blocks that share a head
};

enum Stage { SCORES = 1, SOFTMAX = 2, CONTEXT = 4 };

struct Head {
    u32 first;      // position of the first key that the row sees
    u32 visible;    // keys that it sees
    u64 ragged;     // where its scores begin
    u32 kv_offset;  // where its key head begins in a cached row
    u32 kv_width;

    __device__ __forceinline__ u32 end() const { return first + visible; }
    // Where the first key that it sees begins in the cache.
    __device__ __forceinline__ u64 seen() const { return (u64)first * kv_width + kv_offset; }
};

__device__ __forceinline__ Head head_of(const Attention &p, u32 row, u32 head) {
    u32 all = ((const Step *)p.step)->first_position + p.first_row + 1;
    Head h;
    h.visible = min(all + row, p.window);
    h.first = all + row - h.visible;
    h.ragged = ragged_offset(p.heads, row, all, p.window) + (u64)head * h.visible;
    h.kv_offset = head / (p.heads / p.kv_heads) * p.head_dim;
    h.kv_width = p.kv_heads * p.head_dim;
    return h;
}

__device__ __forceinline__ float score_of(const Attention &p, float product) {
    float score = product * p.scale;
    return p.cap == 0.0f ? score : soft_cap(score, p.cap);
}

// ---- Several blocks that share a head

const u32 MOST_PARTS = 8;

// What blocks of a softmax tell each other.
struct Whole {
    float largest[MOST_PARTS];
    float sums[MOST_PARTS];
    float scratch[32];
};

// The first half of a barrier, whose other half is cluster_wait: a block says that it is there. Nothing is put into a block
// that is not. No cluster_sync stands between the halves.
__device__ __forceinline__ void cluster_arrive(u32 parts) {
#if __CUDA_ARCH__ >= 900
    if (parts > 1) asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
#endif
}

__device__ __forceinline__ void cluster_wait(u32 parts) {
#if __CUDA_ARCH__ >= 900
    if (parts > 1) asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}

// Waits for the other blocks of a head, and makes what they put visible.
__device__ __forceinline__ void cluster_sync(u32 parts) {
    if (parts == 1) {
        __syncthreads();
    } else {
        cluster_arrive(parts);
        cluster_wait(parts);
    }
}

// Puts a value where another block of a head has `place`: nobody reads another's memory, and each may end when it likes.
__device__ __forceinline__ void put(float *place, u32 part, u32 parts, float value) {
#if __CUDA_ARCH__ >= 900
    if (parts > 1) {
        u32 there;
        asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"((u32)__cvta_generic_to_shared(place)), "r"(part));
        asm volatile("st.shared::cluster.f32 [%0], %1;" ::"r"(there), "f"(value) : "memory");
        return;
    }
#endif
    *place = value;
}

// Probabilities of the `count` keys of a part among those of all parts. `keep` takes them too where it is there; both may
// be `scores`.
__device__ __forceinline__ void softmax(const float *scores, float *probabilities, float *keep, u32 count, u32 part, u32 parts, Whole &whole) {
    float largest = -INFINITY, sum = 0.0f;
    for (u32 i = threadIdx.x; i < count; i += blockDim.x) largest = fmaxf(largest, scores[i]);
    largest = block_max(largest, whole.scratch);
    float shift = largest == -INFINITY ? 0.0f : largest;
    for (u32 i = threadIdx.x; i < count; i += blockDim.x) sum += expf(scores[i] - shift);
    sum = block_sum(sum, whole.scratch);
    if (threadIdx.x < parts) {
        put(&whole.largest[part], threadIdx.x, parts, largest);
        put(&whole.sums[part], threadIdx.x, parts, sum);
    }
    cluster_sync(parts);
    for (u32 other = 0; other < parts; other++) largest = fmaxf(largest, whole.largest[other]);
    sum = 0.0f;
    for (u32 other = 0; other < parts; other++) sum += whole.sums[other] * expf(whole.largest[other] - largest);
    for (u32 i = threadIdx.x; i < count; i += blockDim.x) {
        float probability = expf(scores[i] - largest) / sum;
        probabilities[i] = probability;
        if (keep) keep[i] = probability;
    }
}

// ---- Few rows

const u32 FEW_THREADS = 512;
const u32 NEAR = 2048;  // keys of a block whose scores and probabilities stay in shared memory too
const u32 AHEAD = 4;    // values that a thread asks for before it uses the first

struct FewShared {
    Whole whole;
    float4 sums[FEW_THREADS];  // of the context: of each group of threads
    float4 received[FEW_THREADS + MOST_PARTS];  // of each part
    float near[NEAR];
};

// The scores of `count` keys from `keys` on: eight lanes a key, four keys a warp, four elements of a head a lane at a time.
__device__ __forceinline__ void scores_of(const Attention &p, const Head &h, const float *query, const float *keys, u32 count, float *scores, float *near) {
    u32 warp = threadIdx.x >> 5, lane = threadIdx.x & 31u, part = lane % 8, fours = p.head_dim / 4;
    const float4 *q = (const float4 *)query;
    for (u32 base = warp * 4; base < count; base += FEW_THREADS / 8) {
        u32 key = base + lane / 8;
        const float4 *k = (const float4 *)(keys + (u64)min(key, count - 1) * h.kv_width);
        float sum = 0.0f;
#pragma unroll 4
        for (u32 i = part; i < fours; i += 8) {
            float4 a = q[i], b = k[i];
            sum = __fmaf_rn(a.x, b.x, sum);
            sum = __fmaf_rn(a.y, b.y, sum);
            sum = __fmaf_rn(a.z, b.z, sum);
            sum = __fmaf_rn(a.w, b.w, sum);
        }
        for (u32 width = 4; width > 0; width >>= 1) sum += __shfl_xor_sync(0xFFFFFFFFu, sum, width);
        if (part == 0 && key < count) {
            float score = score_of(p, sum);
            scores[key] = score;
            if (key < NEAR) near[key] = score;
        }
    }
}

__device__ __forceinline__ void add(float4 &sum, const float4 &other) {
    sum.x += other.x;
    sum.y += other.y;
    sum.z += other.z;
    sum.w += other.w;
}

// The context of a head: threads share out keys and four elements each, then blocks add up what each has.
__device__ __forceinline__ void context_of(const Attention &p, const Head &h, const float *weights, const float *values, u32 count, u32 part,
                                           float *context, FewShared &shared) {
    u32 fours = p.head_dim / 4, lanes = min(fours, FEW_THREADS), groups = FEW_THREADS / lanes, group = threadIdx.x / lanes;
    for (u32 base = 0; base < fours; base += lanes) {
        u32 i = base + threadIdx.x % lanes;
        if (base > 0) cluster_sync(p.parts);
        float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        u32 mine = group < groups && i < fours ? count : 0;
        for (u32 key = group; key < mine; key += groups * AHEAD) {
            float4 value[AHEAD];
#pragma unroll
            for (u32 j = 0; j < AHEAD; j++) {
                if (key + j * groups < mine) value[j] = *(const float4 *)(values + (u64)(key + j * groups) * h.kv_width + i * 4);
            }
#pragma unroll
            for (u32 j = 0; j < AHEAD; j++) {
                if (key + j * groups >= mine) break;
                float weight = weights[key + j * groups];
                sum.x = __fmaf_rn(weight, value[j].x, sum.x);
                sum.y = __fmaf_rn(weight, value[j].y, sum.y);
                sum.z = __fmaf_rn(weight, value[j].z, sum.z);
                sum.w = __fmaf_rn(weight, value[j].w, sum.w);
            }
        }
        shared.sums[threadIdx.x] = sum;
        __syncthreads();
        // Four neighbours go to the part whose turn it is, which has a row for every part.
        u32 fours_here = min(lanes, fours - base), each = (lanes + p.parts - 1) / p.parts;
        if (threadIdx.x < fours_here) {
            for (u32 other = 1; other < groups; other++) add(sum, shared.sums[other * lanes + threadIdx.x]);
            float *place = (float *)&shared.received[part * each + threadIdx.x / p.parts];
            put(place, threadIdx.x % p.parts, p.parts, sum.x);
            put(place + 1, threadIdx.x % p.parts, p.parts, sum.y);
            put(place + 2, threadIdx.x % p.parts, p.parts, sum.z);
            put(place + 3, threadIdx.x % p.parts, p.parts, sum.w);
        }
        cluster_sync(p.parts);
        u32 at = threadIdx.x * p.parts + part;
        if (at < fours_here) {
            float4 whole = shared.received[threadIdx.x];
            for (u32 other = 1; other < p.parts; other++) add(whole, shared.received[other * each + threadIdx.x]);
            ((float4 *)context)[base + at] = whole;
        }
    }
}

// Those stages of a head of a row that are asked for. Its keys are shared out to the blocks of a cluster: a token has few
// heads, and most of the card would look on.
extern "C" __global__ void __launch_bounds__(FEW_THREADS) attention_few(const __grid_constant__ Attention p) {
    successors_may_begin();
    __shared__ FewShared shared;
    u32 head = blockIdx.x / p.parts, part = blockIdx.x % p.parts, row = blockIdx.y;
    cluster_arrive(p.parts);
    Head h = head_of(p, row, head);
    predecessors_are_done();
    // This block's keys.
    u32 each = (h.visible + p.parts - 1) / p.parts, first = min(part * each, h.visible), count = min(each, h.visible - first);
    float *scores = (float *)p.scores + h.ragged + first, *probabilities = (float *)p.probabilities + h.ragged + first;
    u64 in_row = ((u64)row * p.heads + head) * p.head_dim, seen = h.seen() + (u64)first * h.kv_width;
    bool near = count <= NEAR;
    if (p.stages & SCORES) {
        scores_of(p, h, (const float *)p.q + in_row, (const float *)p.keys + seen, count, scores, shared.near);
        __syncthreads();
    }
    cluster_wait(p.parts);
    if (p.stages & SOFTMAX) {
        const float *from = near && (p.stages & SCORES) ? shared.near : scores;
        softmax(from, probabilities, near ? shared.near : (float *)0, count, part, p.parts, shared.whole);
        __syncthreads();
    }
    if (p.stages & CONTEXT) {
        const float *weights = near && (p.stages & SOFTMAX) ? shared.near : probabilities;
        context_of(p, h, weights, (const float *)p.values + seen, count, part, (float *)p.context + in_row, shared);
    }
}

// ---- Many rows

const u32 SQUARE = 64;  // rows and columns of a tile; a thread makes 4 x 4 of it
const u32 DEPTH = 32;

const float UNSEEN = -1.0f;  // in place of the probability of a key that a row does not see

// Adds the products of a tile's columns `a[d]` and `b[d]`: thread (x, y) takes rows 4 y and columns 4 x on. Of some tiles
// not all is seen: there even 0 would be wrong as a factor, of a value that is not finite.
template <bool ALL_SEEN>
__device__ __forceinline__ void add_tile(const float (*a)[SQUARE + 4], const float (*b)[SQUARE + 4], u32 x, u32 y, float (*sums)[4]) {
#pragma unroll 8
    for (u32 d = 0; d < DEPTH; d++) {
        float4 left = *(const float4 *)&a[d][y * 4], right = *(const float4 *)&b[d][x * 4];
        float rows[4] = {left.x, left.y, left.z, left.w}, columns[4] = {right.x, right.y, right.z, right.w};
#pragma unroll
        for (u32 i = 0; i < 4; i++)
#pragma unroll
            for (u32 j = 0; j < 4; j++) {
                if (ALL_SEEN || !(rows[i] < 0.0f)) sums[i][j] = __fmaf_rn(rows[i], columns[j], sums[i][j]);
            }
    }
}

// Scores of many rows: a tile of rows and keys a block.
extern "C" __global__ void __launch_bounds__(256) attention_scores(const __grid_constant__ Attention p) {
    in_turn();
    __shared__ __align__(16) float qs[DEPTH][SQUARE + 4], ks[DEPTH][SQUARE + 4];
    u32 first_key = blockIdx.x * SQUARE, first_row = blockIdx.y * SQUARE, head = blockIdx.z;
    u32 last_row = min(first_row + SQUARE, p.rows) - 1;
    Head top = head_of(p, first_row, head);
    u32 most = head_of(p, last_row, head).end();
    if (first_key >= most || first_key + SQUARE <= top.first) return;
    const float *q = (const float *)p.q + (u64)head * p.head_dim, *keys = (const float *)p.keys + top.kv_offset;
    u32 x = threadIdx.x % 16, y = threadIdx.x / 16, d = threadIdx.x % DEPTH;
    float sums[4][4] = {};
    for (u32 depth = 0; depth < p.head_dim; depth += DEPTH) {
        bool inside = depth + d < p.head_dim;
#pragma unroll
        for (u32 r = threadIdx.x / DEPTH; r < SQUARE; r += 256 / DEPTH) {
            u32 row = first_row + r, key = first_key + r;
            qs[d][r] = inside && row < p.rows ? q[(u64)row * p.heads * p.head_dim + depth + d] : 0.0f;
            ks[d][r] = inside && key < most ? keys[(u64)key * top.kv_width + depth + d] : 0.0f;
        }
        __syncthreads();
        add_tile<true>(qs, ks, x, y, sums);
        __syncthreads();
    }
    for (u32 i = 0; i < 4; i++) {
        u32 row = first_row + y * 4 + i;
        if (row >= p.rows) continue;
        Head h = head_of(p, row, head);
        for (u32 j = 0; j < 4; j++) {
            u32 key = first_key + x * 4 + j;
            if (key >= h.first && key < h.end()) ((float *)p.scores)[h.ragged + key - h.first] = score_of(p, sums[i][j]);
        }
    }
}

// Softmax of many rows: a block a head of a row.
extern "C" __global__ void __launch_bounds__(128) attention_softmax(const __grid_constant__ Attention p) {
    in_turn();
    __shared__ Whole whole;
    Head h = head_of(p, blockIdx.x, blockIdx.y);
    softmax((const float *)p.scores + h.ragged, (float *)p.probabilities + h.ragged, (float *)0, h.visible, 0, 1, whole);
}

// Context of many rows: a tile of rows and elements of a head a block.
extern "C" __global__ void __launch_bounds__(256) attention_context(const __grid_constant__ Attention p) {
    in_turn();
    __shared__ __align__(16) float ps[DEPTH][SQUARE + 4], vs[DEPTH][SQUARE + 4];
    const u32 STRIDE = 256 / DEPTH;
    u32 first_element = blockIdx.x * SQUARE, first_row = blockIdx.y * SQUARE, head = blockIdx.z;
    u32 last_row = min(first_row + SQUARE, p.rows) - 1;
    Head top = head_of(p, first_row, head), bottom = head_of(p, last_row, head);
    const float *values = (const float *)p.values + bottom.kv_offset;
    u32 x = threadIdx.x % 16, y = threadIdx.x / 16, d = threadIdx.x % DEPTH, r = threadIdx.x / DEPTH;
    // A thread loads the same rows of every tile.
    const float *rows[SQUARE / STRIDE];
    u32 starts[SQUARE / STRIDE], ends[SQUARE / STRIDE];
#pragma unroll
    for (u32 i = 0; i < SQUARE / STRIDE; i++) {
        u32 row = first_row + r + i * STRIDE;
        Head h = head_of(p, min(row, p.rows - 1), head);
        rows[i] = (const float *)p.probabilities + h.ragged;
        starts[i] = h.first;
        ends[i] = row < p.rows ? h.end() : 0;
    }
    float sums[4][4] = {};
    for (u32 depth = top.first; depth < bottom.end(); depth += DEPTH) {
#pragma unroll
        for (u32 i = 0; i < SQUARE / STRIDE; i++) {
            u32 key = depth + d;
            ps[d][r + i * STRIDE] = key >= starts[i] && key < ends[i] ? rows[i][key - starts[i]] : UNSEEN;
        }
#pragma unroll
        for (u32 i = threadIdx.x; i < SQUARE * DEPTH; i += 256) {
            u32 e = i % SQUARE, key = depth + i / SQUARE;
            bool inside = key < bottom.end() && first_element + e < p.head_dim;
            vs[i / SQUARE][e] = inside ? values[(u64)key * bottom.kv_width + first_element + e] : 0.0f;
        }
        __syncthreads();
        if (depth >= bottom.first && depth + DEPTH <= top.end()) add_tile<true>(ps, vs, x, y, sums);
        else add_tile<false>(ps, vs, x, y, sums);
        __syncthreads();
    }
    for (u32 i = 0; i < 4; i++) {
        u32 row = first_row + y * 4 + i;
        if (row >= p.rows) continue;
        for (u32 j = 0; j < 4; j++) {
            u32 element = first_element + x * 4 + j;
            if (element < p.head_dim) ((float *)p.context)[((u64)row * p.heads + head) * p.head_dim + element] = sums[i][j];
        }
    }
}
