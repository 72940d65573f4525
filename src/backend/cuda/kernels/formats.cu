// Stored blocks to f32, four elements at a time, rounded as src/model/quant does: scale first, then the quant, then the
// minimum. The layouts are described there.

// Scale and minimum of sub-block `sub` of a Q4_K or Q5_K super-block, 6 bits each.
__device__ __forceinline__ void scale_min(const u8 *packed, u32 sub, float &scale, float &minimum) {
    u32 s, m;
    if (sub < 4) {
        s = packed[sub] & 63u;
        m = packed[sub + 4] & 63u;
    } else {
        s = (packed[sub + 4] & 15u) | ((packed[sub - 4] >> 6) << 4);
        m = (packed[sub + 4] >> 4) | ((packed[sub] >> 6) << 4);
    }
    scale = (float)s;
    minimum = (float)m;
}

// Elements `element .. element + 4` of a stored row; `element` is a multiple of four.
template <int TYPE>
__device__ __forceinline__ float4 four(const u8 *row, u64 element);

template <>
__device__ __forceinline__ float4 four<F32>(const u8 *row, u64 element) {
    return *(const float4 *)((const float *)row + element);
}

template <>
__device__ __forceinline__ float4 four<F16>(const u8 *row, u64 element) {
    uint2 bits = *(const uint2 *)((const u16 *)row + element);
    return make_float4(half_to_float((u16)bits.x), half_to_float((u16)(bits.x >> 16)), half_to_float((u16)bits.y),
                       half_to_float((u16)(bits.y >> 16)));
}

template <>
__device__ __forceinline__ float4 four<BF16>(const u8 *row, u64 element) {
    uint2 bits = *(const uint2 *)((const u16 *)row + element);
    return make_float4(bf16_to_float((u16)bits.x), bf16_to_float((u16)(bits.x >> 16)), bf16_to_float((u16)bits.y),
                       bf16_to_float((u16)(bits.y >> 16)));
}

template <>
__device__ __forceinline__ float4 four<Q8_0>(const u8 *row, u64 element) {
    const u8 *block = row + element / 32 * 34;
    float scale = half_to_float(*(const u16 *)block);
    const u16 *pairs = (const u16 *)(block + 2 + element % 32);
    u16 a = pairs[0], b = pairs[1];
    return make_float4(scale * (float)(signed char)(a & 255u), scale * (float)(signed char)(a >> 8),
                       scale * (float)(signed char)(b & 255u), scale * (float)(signed char)(b >> 8));
}

__device__ __forceinline__ float4 scaled(float scale, float minimum, u32 quants) {
    return make_float4(scale * (float)(quants & 255u) - minimum, scale * (float)((quants >> 8) & 255u) - minimum,
                       scale * (float)((quants >> 16) & 255u) - minimum, scale * (float)(quants >> 24) - minimum);
}

template <>
__device__ __forceinline__ float4 four<Q4_K>(const u8 *row, u64 element) {
    const u8 *block = row + element / 256 * 144;
    u32 within = (u32)(element % 256), sub = within / 32;
    float scale, minimum;
    scale_min(block + 4, sub, scale, minimum);
    scale = half_to_float(((const u16 *)block)[0]) * scale;
    minimum = half_to_float(((const u16 *)block)[1]) * minimum;
    u32 word = *(const u32 *)(block + 16 + within / 64 * 32 + within % 32);
    return scaled(scale, minimum, (word >> (sub % 2 * 4)) & 0x0F0F0F0Fu);
}

template <>
__device__ __forceinline__ float4 four<Q5_K>(const u8 *row, u64 element) {
    const u8 *block = row + element / 256 * 176;
    u32 within = (u32)(element % 256), sub = within / 32;
    float scale, minimum;
    scale_min(block + 4, sub, scale, minimum);
    scale = half_to_float(((const u16 *)block)[0]) * scale;
    minimum = half_to_float(((const u16 *)block)[1]) * minimum;
    u32 high = *(const u32 *)(block + 16 + within % 32);
    u32 word = *(const u32 *)(block + 48 + within / 64 * 32 + within % 32);
    return scaled(scale, minimum, ((word >> (sub % 2 * 4)) & 0x0F0F0F0Fu) | (((high >> sub) & 0x01010101u) << 4));
}

template <>
__device__ __forceinline__ float4 four<Q6_K>(const u8 *row, u64 element) {
    const u8 *block = row + element / 256 * 210;
    u32 within = (u32)(element % 256), half = within / 128, group = within % 128 / 32, place = within % 32;
    float scale = half_to_float(*(const u16 *)(block + 208)) * (float)(signed char)block[192 + within / 16];
    const u16 *low = (const u16 *)(block + half * 64 + group % 2 * 32 + place);
    const u16 *high = (const u16 *)(block + 128 + half * 32 + place);
    u32 nibbles = ((low[0] | ((u32)low[1] << 16)) >> (group / 2 * 4)) & 0x0F0F0F0Fu;
    u32 pairs = ((high[0] | ((u32)high[1] << 16)) >> (group * 2)) & 0x03030303u;
    u32 quants = nibbles | (pairs << 4);
    return make_float4(scale * (float)((int)(quants & 255u) - 32), scale * (float)((int)((quants >> 8) & 255u) - 32),
                       scale * (float)((int)((quants >> 16) & 255u) - 32), scale * (float)((int)(quants >> 24) - 32));
}

// Bytes of a stored row of `columns` elements.
template <int TYPE>
__device__ __forceinline__ u64 row_bytes(u64 columns) {
    switch (TYPE) {
        case F32: return columns * 4;
        case F16:
        case BF16: return columns * 2;
        case Q8_0: return columns / 32 * 34;
        case Q4_K: return columns / 256 * 144;
        case Q5_K: return columns / 256 * 176;
        default: return columns / 256 * 210;
    }
}

// ---- Rows of a weight, converted for a product

struct Dequantize {
    u64 weight;
    u64 out;
    u64 rows;
    u32 columns;
    u32 compute_type;
};

__device__ __forceinline__ void store_four(const Dequantize &p, u64 index, float4 values) {
    if (p.compute_type == COMPUTE_F32) {
        *(float4 *)((float *)p.out + index) = values;
    } else {
        u32 first = rounded_pair(values.x, values.y, p.compute_type);
        *(uint2 *)((u16 *)p.out + index) = make_uint2(first, rounded_pair(values.z, values.w, p.compute_type));
    }
}

template <int TYPE>
__device__ __forceinline__ void dequantize(const Dequantize &p) {
    u32 column = (blockIdx.y * blockDim.x + threadIdx.x) * 4;
    u64 row = blockIdx.x, index = row * p.columns + column;
    if (column >= p.columns) return;
    float4 values = four<TYPE>((const u8 *)p.weight + row * row_bytes<TYPE>(p.columns), column);
    store_four(p, index, values);
}

// Q4_K again: a thread takes a word of quants, four elements of one sub-block and four of the next.
template <>
__device__ __forceinline__ void dequantize<Q4_K>(const Dequantize &p) {
    u32 word_number = blockIdx.y * blockDim.x + threadIdx.x, column = word_number / 32 * 256 + word_number % 32 / 8 * 64 + word_number % 8 * 4;
    u64 row = blockIdx.x;
    if (column >= p.columns) return;
    const u8 *block = (const u8 *)p.weight + row * row_bytes<Q4_K>(p.columns) + word_number / 32 * 144;
    uint4 head = *(const uint4 *)block;
    u32 word = *(const u32 *)(block + 16 + word_number % 32 * 4), chunk = word_number % 32 / 8, shift = chunk % 2 * 16;
    u32 scales = (head.y >> shift) & 0x3F3Fu, minima = (head.z >> shift) & 0x3F3Fu;
    if (chunk >= 2) {
        u32 mixed = head.w >> shift;
        scales = (mixed & 0x0F0Fu) | (((head.y >> shift) & 0xC0C0u) >> 2);
        minima = ((mixed >> 4) & 0x0F0Fu) | (((head.z >> shift) & 0xC0C0u) >> 2);
    }
    float d = half_to_float((u16)head.x), dmin = half_to_float((u16)(head.x >> 16));
    u64 index = row * p.columns + column;
    store_four(p, index, scaled(d * (float)(scales & 255u), dmin * (float)(minima & 255u), word & 0x0F0F0F0Fu));
    store_four(p, index + 32, scaled(d * (float)(scales >> 8), dmin * (float)(minima >> 8), (word >> 4) & 0x0F0F0F0Fu));
}

// ---- Rows of an embedding, by token or by position

struct Embedding {
    u64 step;
    u64 weight;
    u64 out;
    u32 columns;
    u32 first_row;
    u32 by_position;
    u32 unused;
};

template <int TYPE>
__device__ __forceinline__ void embedding(const Embedding &p) {
    const Step *step = (const Step *)p.step;
    u32 row = p.first_row + blockIdx.x;
    u64 index = p.by_position ? step->first_position + row : step->tokens[row];
    const u8 *stored = (const u8 *)p.weight + index * row_bytes<TYPE>(p.columns);
    float *out = (float *)p.out + (u64)blockIdx.x * p.columns;
    for (u32 column = threadIdx.x * 4; column < p.columns; column += blockDim.x * 4) {
        float4 values = four<TYPE>(stored, column);
        out[column] = values.x;
        out[column + 1] = values.y;
        out[column + 2] = values.z;
        out[column + 3] = values.w;
    }
}

#define FORMAT(name, TYPE)                                                                                          \
    extern "C" __global__ void dequantize_##name(const __grid_constant__ Dequantize p) { in_turn(); dequantize<TYPE>(p); }     \
    extern "C" __global__ void embedding_##name(const __grid_constant__ Embedding p) { in_turn(); embedding<TYPE>(p); }

FORMAT(f32, F32)
FORMAT(f16, F16)
FORMAT(bf16, BF16)
FORMAT(q8_0, Q8_0)
FORMAT(q4_k, Q4_K)
FORMAT(q5_k, Q5_K)
FORMAT(q6_k, Q6_K)

// ---- Activations in the type of a product's operands

struct Cast {
    u64 x;
    u64 out;
    u64 count;
    u32 compute_type;
    u32 unused;
};

extern "C" __global__ void cast(const __grid_constant__ Cast p) {
    in_turn();
    u64 index = ((u64)blockIdx.x * blockDim.x + threadIdx.x) * 4;
    if (index >= p.count) return;
    float4 values = *(const float4 *)((const float *)p.x + index);
    u32 first = rounded_pair(values.x, values.y, p.compute_type);
    *(uint2 *)((u16 *)p.out + index) = make_uint2(first, rounded_pair(values.z, values.w, p.compute_type));
}
