// What every kernel shares. Compiled without headers and with --fmad=false: an expression rounds as it is written, and
// a fused multiply-add is asked for by name.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

// The batch under way, in device memory: a captured graph reads the position of its step from here. No kernel writes it. It
// comes by a copy in the same stream, in front of which no kernel behind it begins, and behind which none of other batches is
// left: it may be read before predecessors are done.
struct Step {
    u32 first_position;
    u32 rows;
    u32 tokens[1];
};

#define INFINITY __int_as_float(0x7F800000)

enum TensorType { F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL, IQ4_XS, MXFP4 };

// Operand types of large products.
enum ComputeType { COMPUTE_F32, COMPUTE_F16, COMPUTE_BF16 };

// A launch of few rows may begin while the one before it still runs (from Hopper on): it says so to the one behind it, and
// waits before it touches what others write. Every kernel waits, whatever it touches: that it ends is all that tells the next
// one that those before it ended.
__device__ __forceinline__ void successors_may_begin() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;");
#endif
}

__device__ __forceinline__ void predecessors_are_done() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

__device__ __forceinline__ void in_turn() {
    successors_may_begin();
    predecessors_are_done();
}

__device__ __forceinline__ float half_to_float(u16 bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}

__device__ __forceinline__ u16 float_to_half(float value) {
    u16 bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}

__device__ __forceinline__ float bf16_to_float(u16 bits) {
    return __uint_as_float((u32)bits << 16);
}

// To nearest, ties to even; a NaN stays one.
__device__ __forceinline__ u16 float_to_bf16(float value) {
    u32 bits = __float_as_uint(value);
    if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return (u16)((bits >> 16) | 0x40u);
    return (u16)((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

__device__ __forceinline__ u16 rounded_operand(float value, u32 compute_type) {
    return compute_type == COMPUTE_F16 ? float_to_half(value) : float_to_bf16(value);
}

// Two neighbours at once, `first` in the lower half.
__device__ __forceinline__ u32 rounded_pair(float first, float second, u32 compute_type) {
#if __CUDA_ARCH__ >= 800
    u32 pair;
    if (compute_type == COMPUTE_F16) asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
    else asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
    return pair;
#else
    return rounded_operand(first, compute_type) | ((u32)rounded_operand(second, compute_type) << 16);
#endif
}

// Elements of a ragged tensor `[heads, visible keys]` before its row `row`. Row 0 could see `all` keys and each row one
// more than the row before it; no row sees more than `window`, which is NO_WINDOW where there is none.
const u32 NO_WINDOW = 0xFFFFFFFFu;

__device__ __forceinline__ u64 ragged_offset(u64 heads, u64 row, u64 all, u64 window) {
    u64 growing = all < window ? min(row, window - all) : 0;
    return heads * (growing * all + growing * (growing - (growing > 0)) / 2 + (row - growing) * window);
}

// The expert that an element of a row of the chosen names. Numbers come from `top_k`; whatever else stands there names no
// memory beyond the last.
__device__ __forceinline__ u32 expert_of(float number, u32 experts) {
    return min((u32)number, experts - 1);
}

__device__ __forceinline__ float soft_cap(float x, float cap) {
    return tanhf(x / cap) * cap;
}

__device__ __forceinline__ float warp_sum(float value) {
    for (int width = 16; width > 0; width >>= 1) value += __shfl_xor_sync(0xFFFFFFFFu, value, width);
    return value;
}

__device__ __forceinline__ double warp_sum(double value) {
    for (int width = 16; width > 0; width >>= 1) value += __shfl_xor_sync(0xFFFFFFFFu, value, width);
    return value;
}

__device__ __forceinline__ float warp_max(float value) {
    for (int width = 16; width > 0; width >>= 1) value = fmaxf(value, __shfl_xor_sync(0xFFFFFFFFu, value, width));
    return value;
}

// Sums over a block of whole warps, in a fixed order. `scratch` has one element a warp; all threads get the sum.
template <class T>
__device__ __forceinline__ T block_sum(T value, T *scratch) {
    u32 warp = threadIdx.x >> 5, lane = threadIdx.x & 31u;
    value = warp_sum(value);
    __syncthreads();
    if (lane == 0) scratch[warp] = value;
    __syncthreads();
    return warp_sum(lane < blockDim.x >> 5 ? scratch[lane] : (T)0);
}

__device__ __forceinline__ float block_max(float value, float *scratch) {
    u32 warp = threadIdx.x >> 5, lane = threadIdx.x & 31u;
    value = warp_max(value);
    __syncthreads();
    if (lane == 0) scratch[warp] = value;
    __syncthreads();
    return warp_max(lane < blockDim.x >> 5 ? scratch[lane] : -INFINITY);
}
