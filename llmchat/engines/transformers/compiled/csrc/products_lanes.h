/* The product kernels for arm64, and for processors known only to the compiler.
 *
 * The dot_*.h give the same integer sums of a group: in 16 bits, or in bytes with arm64's dot
 * product. Weights are packed as activations are, so many of a row side by side as a 32-bit lane
 * multiplies. */
#pragma once

typedef act_t packed_t;
#define PACKED_SIZE (CACHE_LINE * LANES) /* [CACHE_LINE / LANE_ACTS][16][LANE_ACTS] */
#define PANEL_DEPTH 1024
#define GEMV_MAX_ROWS 3
#define TILE_ROWS 4

/* Sums of one group for 16 columns. */
typedef union {
    int32_t lane[LANES];
    i32x16 all;
} GroupSums;

#ifdef USE_DOTPROD
#include "dot_dotprod.h"
#else
#include "dot_portable.h"
#endif

/* 16 outputs for one row of activations, directly from the weights. */
static void gemv_block(const Activations *acts, int64_t row, const RowBlock *block, float *out) {
    const act_t *q = acts->q + row * acts->width;
    f32x16 total = {};
    for (int64_t group = 0; group < acts->groups; group++) {
        int64_t column = group * GROUP, count = MAX(0, MIN(GROUP, acts->in - column));
        GroupSums sums; /* in memory: clang would reload a vector for each of its lanes */
        for (int i = 0; i < LANES; i++) {
            const int8_t *w = block->rows[i] + column;
            int32_t s = 0;
            if (column % CACHE_LINE == 0) __builtin_prefetch(block->next + i * acts->in + column);
            if (count == GROUP)
                s = dot_group(w, q + column);
            else
                for (int k = 0; k < count; k++) s += (int16_t)w[k] * q[column + k];
            sums.lane[i] = s;
        }
        total = fused_madd(__builtin_convertvector(sums.all, f32x16),
                           splat(acts->scale[row * acts->groups + group]), total);
    }
    store(out, total);
}

/* Pack one cache line of columns of 16 rows from `column` on, of which `left` exist: LANE_ACTS
 * neighbours of a row next to those of the next row. The panels of two blocks alternate. */
INLINE void pack_panel(const RowBlock *block, int64_t column, int64_t left, packed_t *out) {
    for (int i = 0; i < LANES; i++) {
        int8_t line[CACHE_LINE] = {0};
        memcpy(line, block->rows[i] + column, MIN(left, CACHE_LINE));
        for (int k = 0; k < CACHE_LINE; k++)
            out[k / LANE_ACTS * 32 * LANE_ACTS + i * LANE_ACTS + k % LANE_ACTS] = line[k];
    }
}

/* out[rows][32] (+)= tile `index` of the activations times a packed panel of `lines` cache lines
 * from column `first` on. */
INLINE void gemm_tile(const Activations *acts, int64_t index, const int rows, int64_t first,
                      int64_t lines, const packed_t *panel, const Prefetch *next, float *out) {
    const int64_t groups_per_line = CACHE_LINE / GROUP;
    const act_t *q = acts->q + (index * acts->width + first) * TILE_ROWS;
    const float *scale = acts->scale + (index * acts->groups + first / GROUP) * TILE_ROWS;
    if (!first) memset(out, 0, rows * 32 * sizeof *out);
    for (int64_t group = 0; group < lines * groups_per_line; group++) {
        if (group % groups_per_line == 0) prefetch_rows(next, index, group / groups_per_line);
        for (int half = 0; half < 2; half++) {
            GroupSums sums[TILE_ROWS] = {0};
            sum_group(q, panel + half * LANES * LANE_ACTS, rows, sums);
            for (int r = 0; r < rows; r++) {
                float *target = out + r * 32 + half * 16;
                store(target, fused_madd(__builtin_convertvector(sums[r].all, f32x16),
                                         splat(scale[r]), load(target)));
            }
        }
        panel += GROUP * 32, q += GROUP * TILE_ROWS, scale += TILE_ROWS;
    }
}
