// Products of a few rows or many with the matrix of each row's expert. A slot is a place among the chosen of a row.

struct ExpertProduct {
    u64 table;   // the address of every expert's matrix; 0 where that is of another type
    u64 chosen;
    u64 x;
    u64 y;
    u32 rows;    // outputs
    u32 columns;
    u32 experts;
    u32 used;
    u32 slot;
    u32 unused;
};

// A block a row and TILE of its outputs.
template <int TYPE>
__device__ __forceinline__ void expert_product(const ExpertProduct &p) {
    u64 row = blockIdx.x;
    u32 first = blockIdx.y * TILE, rows = min(TILE, p.rows - first);
    u32 expert = expert_of(((const float *)p.chosen)[row * p.used + p.slot], p.experts);
    const u8 *matrix = (const u8 *)((const u64 *)p.table)[expert];
    if (!matrix) return;
    const float *x = (const float *)p.x + row * p.columns;
    float y = tile_product<TYPE>(matrix + first * row_bytes<TYPE>(p.columns), x, rows, p.columns);
    if (threadIdx.x < rows) ((float *)p.y)[row * p.rows + first + threadIdx.x] = y;
}

#define EXPERTS(name, TYPE) \
    extern "C" __global__ void __launch_bounds__(WARPS * 32, 4) experts_##name(const __grid_constant__ ExpertProduct p) { in_turn(); expert_product<TYPE>(p); }
