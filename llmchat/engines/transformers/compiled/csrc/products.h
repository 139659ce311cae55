/* Products of quantised activations with int8 weights, for one panel of 32 output columns.
 *
 * The sum over a group is exact in integers; the sums of the groups are added in fp32, in order. So
 * each kernel of an instruction set gives the same bits for a row, whatever the number of rows. */
#pragma once
#include "activations.h"

#define PANEL_COLUMNS (2 * LANES)
#define PANEL_BYTES (1024 * PANEL_COLUMNS * sizeof(packed_t)) /* enough for any kind of panel */

/* 16 rows of weights; `next` is where the following ones begin (only a prefetch hint). */
typedef struct {
    const int8_t *rows[LANES], *next;
} RowBlock;

/* The rows of both blocks to prefetch for the next panel. Packing and each tile request
 * `rows_per_part` of them: requested all at once they would arrive no faster, and memory would idle
 * for the rest of the time. */
typedef struct {
    const int8_t *left, *right;
    int64_t stride, rows_per_part;
} Prefetch;

/* Above so many rows of activations, arithmetic takes much longer than memory. */
#define PREFETCH_MAX_ROWS 64

INLINE void prefetch_rows(const Prefetch *next, int64_t part, int64_t line) {
    int64_t end = MIN((part + 1) * next->rows_per_part, PANEL_COLUMNS);
    for (int64_t i = part * next->rows_per_part; i < end; i++) {
        const int8_t *row =
            i < LANES ? next->left + i * next->stride : next->right + (i - LANES) * next->stride;
        __builtin_prefetch(row + line * CACHE_LINE, 0, 2);
    }
}

/* Each instruction set defines
 *
 *     packed_t, PACKED_SIZE   a packed weight; elements of one cache line of 16 rows, packed
 *     PANEL_DEPTH             weights of a row packed at once: the panel stays in the L1 cache
 *     TILE_ROWS               rows of activations that a tile holds in registers
 *     GEMV_MAX_ROWS           rows up to which weights are used where they are, without packing
 *     gemv_block, pack_panel, gemm_tile */
#ifdef USE_VNNI
#include "products_vnni.h"
#elif defined(USE_AVX2)
#include "products_avx2.h"
#else
#include "products_lanes.h"
#endif

/* All rows of the activations times a packed panel of `lines` cache lines from column `first`. */
static void multiply_tiles(const Activations *acts, int64_t first, int64_t lines,
                           const packed_t *panel, const Prefetch *next, float *out) {
    int64_t full = acts->rows / TILE_ROWS;
    for (int64_t i = 0; i < full; i++)
        gemm_tile(acts, i, TILE_ROWS, first, lines, panel, next, out + i * TILE_ROWS * 32);
    float *tail = out + full * TILE_ROWS * 32;
    /* The number of rows must be a constant for the accumulators to stay in registers. */
    switch (acts->rows % TILE_ROWS) {
#if TILE_ROWS > 4
    case 5: gemm_tile(acts, full, 5, first, lines, panel, next, tail); break;
    case 4: gemm_tile(acts, full, 4, first, lines, panel, next, tail); break;
#endif
    case 3: gemm_tile(acts, full, 3, first, lines, panel, next, tail); break;
    case 2: gemm_tile(acts, full, 2, first, lines, panel, next, tail); break;
    case 1: gemm_tile(acts, full, 1, first, lines, panel, next, tail); break;
    }
}

/* out[32] for one row. */
static void multiply_row(const Activations *acts, int64_t row, const RowBlock *left,
                         const RowBlock *right, float *out) {
    gemv_block(acts, row, left, out);
    gemv_block(acts, row, right, out + LANES);
}

/* out[rows of acts][32], without the scales of the weights. residual: the rounding errors of the
 * same rows, or NULL; their product follows behind the first one in `out`. Not inlined: decoding is
 * 4 % slower otherwise (gcc 12). */
static __attribute__((noinline)) void multiply_panel(const Activations *acts,
                                                     const Activations *residual,
                                                     const RowBlock *left, const RowBlock *right,
                                                     packed_t *panel, float *out) {
    float *residual_out = out + acts->rows * 32;
    if (acts->rows <= GEMV_MAX_ROWS) {
        for (int64_t row = 0; row < acts->rows; row++) {
            multiply_row(acts, row, left, right, out + row * 32);
            if (residual) multiply_row(residual, row, left, right, residual_out + row * 32);
        }
        return;
    }
    int64_t parts = (acts->rows + TILE_ROWS - 1) / TILE_ROWS + 1;
    const Prefetch nothing = {0};
    for (int64_t first = 0; first < acts->width; first += PANEL_DEPTH) {
        int64_t lines = MIN(PANEL_DEPTH, acts->width - first) / CACHE_LINE;
        int64_t end = first + lines * CACHE_LINE;
        Prefetch next = {.stride = acts->in};
        if (acts->rows <= PREFETCH_MAX_ROWS)
            next.rows_per_part = ROUND_UP(PANEL_COLUMNS, parts) / parts;
        next.left = end == acts->width ? left->next : left->rows[0] + end;
        next.right = end == acts->width ? right->next : right->rows[0] + end;
        for (int64_t line = 0; line < lines; line++) {
            int64_t column = first + line * CACHE_LINE;
            packed_t *target = panel + line * 2 * PACKED_SIZE;
            prefetch_rows(&next, parts - 1, line);
            pack_panel(left, column, acts->in - column, target);
            pack_panel(right, column, acts->in - column, target + 64 / sizeof(packed_t));
        }
        multiply_tiles(acts, first, lines, panel, &next, out);
        if (residual) multiply_tiles(residual, first, lines, panel, &nothing, residual_out);
    }
}
