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

// Four bytes that begin at an even address.
__device__ __forceinline__ u32 word_at(const u8 *bytes) {
    const u16 *pairs = (const u16 *)bytes;
    return pairs[0] | ((u32)pairs[1] << 16);
}

// Of four quants, one a byte: scale * quant - minimum.
__device__ __forceinline__ float4 scaled(float scale, float minimum, u32 quants) {
    return make_float4(scale * (float)(quants & 255u) - minimum, scale * (float)((quants >> 8) & 255u) - minimum,
                       scale * (float)((quants >> 16) & 255u) - minimum, scale * (float)(quants >> 24) - minimum);
}

// Of four quants, one a byte: scale * (quant - middle).
__device__ __forceinline__ float4 centred(float scale, int middle, u32 quants) {
    return make_float4(scale * (float)((int)(quants & 255u) - middle), scale * (float)((int)((quants >> 8) & 255u) - middle),
                       scale * (float)((int)((quants >> 16) & 255u) - middle), scale * (float)((int)(quants >> 24) - middle));
}

// Of four signed quants, one a byte: scale * quant.
__device__ __forceinline__ float4 signed_quants(float scale, u32 quants) {
    return make_float4(scale * (float)(signed char)quants, scale * (float)(signed char)(quants >> 8),
                       scale * (float)(signed char)(quants >> 16), scale * (float)(signed char)(quants >> 24));
}

// Of a block of 32 nibbles, whose bytes hold element l low and element l + 16 high: four from `within` on, one a byte.
__device__ __forceinline__ u32 nibbles_of(u32 word, u32 within) {
    return (word >> (within / 16 * 4)) & 0x0F0F0F0Fu;
}

// The fifth bits of four elements from `within` on, each on top of its nibble's byte.
__device__ __forceinline__ u32 fifths_of(u32 high, u32 within) {
    u32 bits = high >> within;
    return (bits & 1u) << 4 | (bits & 2u) << 11 | (bits & 4u) << 18 | (bits & 8u) << 25;
}

// The bytes of a table of 16 that four nibbles, one a byte, name; the table's first byte is the lowest of `a`.
__device__ __forceinline__ u32 looked_up(u32 nibbles, u32 a, u32 b, u32 c, u32 d) {
    u32 low = nibbles & 0x07070707u, selector = low | low >> 4;
    selector = (selector & 255u) | ((selector >> 8) & 0xFF00u);
    u32 upper = ((nibbles >> 3) & 0x01010101u) * 255u;
    return (__byte_perm(a, b, selector) & ~upper) | (__byte_perm(c, d, selector) & upper);
}

// The table of IQ4_NL and IQ4_XS: -127 -104 -83 -65, -49 -35 -22 -10, 1 13 25 38, 53 69 89 113.
__device__ __forceinline__ u32 non_linear(u32 nibbles) {
    return looked_up(nibbles, 0xBFAD9881u, 0xF6EADDCFu, 0x26190D01u, 0x71594535u);
}

// E2M1, doubled: 0 1 2 3, 4 6 8 12, and the same with a sign.
__device__ __forceinline__ u32 e2m1_doubled(u32 nibbles) {
    return looked_up(nibbles, 0x03020100u, 0x0C080604u, 0xFDFEFF00u, 0xF4F8FAFCu);
}

template <>
__device__ __forceinline__ float4 four<Q4_0>(const u8 *row, u64 element) {
    const u8 *block = row + element / 32 * 18;
    u32 within = (u32)(element % 32);
    return centred(half_to_float(*(const u16 *)block), 8, nibbles_of(word_at(block + 2 + within % 16), within));
}

template <>
__device__ __forceinline__ float4 four<Q4_1>(const u8 *row, u64 element) {
    const u8 *block = row + element / 32 * 20;
    u32 within = (u32)(element % 32), quants = nibbles_of(*(const u32 *)(block + 4 + within % 16), within);
    return scaled(half_to_float(((const u16 *)block)[0]), -half_to_float(((const u16 *)block)[1]), quants);
}

template <>
__device__ __forceinline__ float4 four<Q5_0>(const u8 *row, u64 element) {
    const u8 *block = row + element / 32 * 22;
    u32 within = (u32)(element % 32), quants = nibbles_of(word_at(block + 6 + within % 16), within);
    return centred(half_to_float(*(const u16 *)block), 16, quants | fifths_of(word_at(block + 2), within));
}

template <>
__device__ __forceinline__ float4 four<Q5_1>(const u8 *row, u64 element) {
    const u8 *block = row + element / 32 * 24;
    u32 within = (u32)(element % 32), quants = nibbles_of(*(const u32 *)(block + 8 + within % 16), within);
    quants |= fifths_of(*(const u32 *)(block + 4), within);
    return scaled(half_to_float(((const u16 *)block)[0]), -half_to_float(((const u16 *)block)[1]), quants);
}

template <>
__device__ __forceinline__ float4 four<Q8_0>(const u8 *row, u64 element) {
    const u8 *block = row + element / 32 * 34;
    return signed_quants(half_to_float(*(const u16 *)block), word_at(block + 2 + element % 32));
}

// Two bits of each element of a half of 128, 32 bytes: four elements from `within` on, one a byte.
__device__ __forceinline__ u32 pairs_of(const u8 *quants, u32 within) {
    return (word_at(quants + within / 128 * 32 + within % 32) >> (within % 128 / 32 * 2)) & 0x03030303u;
}

template <>
__device__ __forceinline__ float4 four<Q2_K>(const u8 *row, u64 element) {
    const u8 *block = row + element / 256 * 84;
    u32 within = (u32)(element % 256), packed = block[within / 16];
    float scale = half_to_float(*(const u16 *)(block + 80)) * (float)(packed & 15u);
    float minimum = half_to_float(*(const u16 *)(block + 82)) * (float)(packed >> 4);
    return scaled(scale, minimum, pairs_of(block + 16, within));
}

template <>
__device__ __forceinline__ float4 four<Q3_K>(const u8 *row, u64 element) {
    const u8 *block = row + element / 256 * 110, *packed = block + 96;
    u32 within = (u32)(element % 256), sub = within / 16;
    u32 low = (packed[sub % 8] >> (sub / 8 * 4)) & 15u, upper = (packed[8 + sub % 4] >> (sub / 4 * 2)) & 3u;
    float scale = half_to_float(*(const u16 *)(block + 108)) * (float)((int)(low | (upper << 4)) - 32);
    u32 thirds = (word_at(block + within % 32) >> (within / 32)) & 0x01010101u;
    return centred(scale, 4, pairs_of(block + 32, within) | (thirds << 2));
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
    u32 nibbles = (word_at(block + half * 64 + group % 2 * 32 + place) >> (group / 2 * 4)) & 0x0F0F0F0Fu;
    return centred(scale, 32, nibbles | (pairs_of(block + 128, within) << 4));
}

template <>
__device__ __forceinline__ float4 four<IQ4_NL>(const u8 *row, u64 element) {
    const u8 *block = row + element / 32 * 18;
    u32 within = (u32)(element % 32), nibbles = nibbles_of(word_at(block + 2 + within % 16), within);
    return signed_quants(half_to_float(*(const u16 *)block), non_linear(nibbles));
}

template <>
__device__ __forceinline__ float4 four<IQ4_XS>(const u8 *row, u64 element) {
    const u8 *block = row + element / 256 * 136;
    u32 within = (u32)(element % 256), sub = within / 32, place = within % 32;
    u32 low = (block[4 + sub / 2] >> (sub % 2 * 4)) & 15u, upper = (((const u16 *)block)[1] >> (sub * 2)) & 3u;
    float scale = half_to_float(*(const u16 *)block) * (float)((int)(low | (upper << 4)) - 32);
    return signed_quants(scale, non_linear(nibbles_of(*(const u32 *)(block + 8 + sub * 16 + place % 16), place)));
}

// Blocks of 17 bytes begin at any address. The scale is half of the exponent's power of two.
template <>
__device__ __forceinline__ float4 four<MXFP4>(const u8 *row, u64 element) {
    const u8 *block = row + element / 32 * 17;
    u32 within = (u32)(element % 32), exponent = block[0];
    const u8 *quants = block + 1 + within % 16;
    u32 word = quants[0] | ((u32)quants[1] << 8) | ((u32)quants[2] << 16) | ((u32)quants[3] << 24);
    float scale = __uint_as_float(exponent < 2 ? 0x00200000u << exponent : (exponent - 1) << 23);
    return signed_quants(scale, e2m1_doubled(nibbles_of(word, within)));
}

// Bytes of a stored row of `columns` elements.
template <int TYPE>
__device__ __forceinline__ u64 row_bytes(u64 columns) {
    switch (TYPE) {
        case F32: return columns * 4;
        case F16:
        case BF16: return columns * 2;
        case Q4_0:
        case IQ4_NL: return columns / 32 * 18;
        case Q4_1: return columns / 32 * 20;
        case Q5_0: return columns / 32 * 22;
        case Q5_1: return columns / 32 * 24;
        case Q8_0: return columns / 32 * 34;
        case MXFP4: return columns / 32 * 17;
        case Q2_K: return columns / 256 * 84;
        case Q3_K: return columns / 256 * 110;
        case IQ4_XS: return columns / 256 * 136;
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

// A part of the source that has the kernels of a type says FORMAT(q8_0, Q8_0).
#define FORMAT(name, TYPE)                                                                                                 \
    extern "C" __global__ void dequantize_##name(const __grid_constant__ Dequantize p) { in_turn(); dequantize<TYPE>(p); } \
    extern "C" __global__ void embedding_##name(const __grid_constant__ Embedding p) { in_turn(); embedding<TYPE>(p); }
