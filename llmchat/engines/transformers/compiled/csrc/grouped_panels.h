/* Products of many rows with weights in groups of few bits: the codes of a piece are unpacked once,
 * to a panel in the cache. A row has the same bits as among few rows, see grouped.h. */
#pragma once
#include "grouped.h"

/* Of 32 outputs: the 16 of `left` and of `right` alternate. */
typedef struct {
    u8x64 codes[CODE_PIECE / 4][2];
    f32x16 scale[MOST_GROUPS][2], minimum[MOST_GROUPS][2];
    int64_t first, chunks; /* of the piece in the rows */
    int32_t zero, has_minimum;
} GroupedPanel;

_Static_assert(sizeof(GroupedPanel) <= PANEL_DEPTH * PANEL_COLUMNS * sizeof(packed_t),
               "it takes the memory of a panel");

/* What is prefetched while a panel is made and used: `lines` of both sides, `per_step` each time.
 */
typedef struct {
    const uint8_t *at[2];
    int64_t line, lines, per_step;
} Ahead;

INLINE void prefetch_some(Ahead *ahead) {
    int64_t end = MIN(ahead->line + ahead->per_step, ahead->lines);
    for (; ahead->line < end; ahead->line++) {
        __builtin_prefetch(ahead->at[0] + ahead->line * CACHE_LINE, 0, 2);
        __builtin_prefetch(ahead->at[1] + ahead->line * CACHE_LINE, 0, 2);
    }
}

/* The codes of one side of a panel. */
static void fill_side(GroupedPanel *panel, int side, const Matrix *matrix, const uint8_t *codes,
                      Ahead *ahead) {
    for (int64_t c = 0; c < panel->chunks; c++, codes += matrix->grouping->bits * 64) {
        prefetch_some(ahead);
        unpack_numbers(matrix, codes, &panel->codes[c * VECTORS][side], 2);
    }
}

/* total -= the minima of all groups times the sums of the activations. */
INLINE void subtract_minima(const GroupedPanel *panel, const ActRow *first, const int rows,
                            const int halves, f32x16 total[TILE_ROWS][2]) {
    for (int64_t g = 0; g < panel->chunks * halves; g++)
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) {
            ActRow row = {first->q, first->scale + r, first->term + r, first->sum + r};
            f32x16 term = splat(
                term_of_group(&row, panel->first + g / halves, g % halves, halves, TILE_ROWS));
            total[r][0] = fused_madd(term, panel->minimum[g][0], total[r][0]);
            total[r][1] = fused_madd(term, panel->minimum[g][1], total[r][1]);
        }
}

/* The starts of the integer sums of a piece, as start_of, for each group and row of a tile. */
INLINE void find_starts(const GroupedPanel *panel, const Activations *acts, const ActRow *row,
                        const int halves, int32_t *starts) {
    int64_t first = panel->first * TILE_ROWS, count = panel->chunks * TILE_ROWS;
    const int32_t *sum = row->sum + 2 * first, *offset = acts->offset + (row->scale - acts->scale);
    uint32_t zero = (uint32_t)panel->zero;
    for (int64_t i = 0; i < count * halves; i++) {
        /* offset: -128 times the sum of both halves */
        uint32_t less = halves == 2 ? -(uint32_t)sum[i] : (uint32_t)(offset[first + i] >> 7);
        starts[i] = (int32_t)(zero * less);
    }
}

/* out[rows][32] (+)= the rows of a tile times a panel. has_zero: whether its zero is not 0. */
INLINE void grouped_tile(const GroupedPanel *panel, const Activations *acts, int64_t tile,
                         const int rows, const int halves, const int has_zero, Ahead *ahead,
                         float *out) {
    ActRow row = act_row(acts, tile * TILE_ROWS);
    f32x16 total[TILE_ROWS][2];
    int32_t all_starts[MOST_GROUPS * TILE_ROWS], *starts = all_starts;
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) {
        total[r][0] = panel->first ? load(out + r * 32) : (f32x16){};
        total[r][1] = panel->first ? load(out + r * 32 + 16) : (f32x16){};
    }
    if (has_zero) find_starts(panel, acts, &row, halves, starts);
    if (panel->has_minimum) subtract_minima(panel, &row, rows, halves, total);
    const act_t *q = row.q + panel->first * CODE_CHUNK * TILE_ROWS;
    const float *scales = row.scale + panel->first * TILE_ROWS;
    const u8x64(*codes)[2] = panel->codes;
    const f32x16(*scale)[2] = panel->scale;
    for (int64_t c = 0; c < panel->chunks; c++, scales += TILE_ROWS) {
        prefetch_some(ahead);
#pragma GCC unroll 2
        for (int h = 0; h < halves; h++, scale++, starts += TILE_ROWS) {
            sums_t sums[TILE_ROWS][2];
#pragma GCC unroll 6
            for (int r = 0; r < rows; r++)
                sums[r][0] = sums[r][1] = sums_from(has_zero ? starts[r] : 0);
#pragma GCC unroll 8
            for (int v = 0; v < VECTORS / halves; v++, q += 4 * TILE_ROWS, codes++)
#pragma GCC unroll 6
                for (int r = 0; r < rows; r++) {
                    fours_t x = load_fours(q + r * LANE_ACTS, TILE_ROWS);
                    add_fours(&sums[r][0], &codes[0][0], x);
                    add_fours(&sums[r][1], &codes[0][1], x);
                }
#pragma GCC unroll 6
            for (int r = 0; r < rows; r++) {
                f32x16 left = scaled_sums(sums[r][0], scales[r]);
                f32x16 right = scaled_sums(sums[r][1], scales[r]);
                total[r][0] = fused_madd(left, scale[0][0], total[r][0]);
                total[r][1] = fused_madd(right, scale[0][1], total[r][1]);
            }
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) {
        store(out + r * 32, total[r][0]);
        store(out + r * 32 + 16, total[r][1]);
    }
}

INLINE void any_grouped_tile(const GroupedPanel *panel, const Activations *acts, int64_t tile,
                             const int rows, int halves, Ahead *ahead, float *out) {
#ifdef HAS_COPIES
    if (halves == 2)
        grouped_tile(panel, acts, tile, rows, 2, 1, ahead, out);
    else if (panel->zero)
        grouped_tile(panel, acts, tile, rows, 1, 1, ahead, out);
    else
        grouped_tile(panel, acts, tile, rows, 1, 0, ahead, out);
#else
    grouped_tile(panel, acts, tile, rows, halves, 1, ahead, out);
#endif
}

#define LAST_TILE(rows) any_grouped_tile(panel, acts, tile, rows, halves, ahead, out)

/* All rows of the activations times a panel. */
static void multiply_tiles_of(const GroupedPanel *panel, const Activations *acts, int halves,
                              Ahead *ahead, float *out) {
    int64_t tile = 0;
    for (; tile < acts->rows / TILE_ROWS; tile++, out += TILE_ROWS * PANEL_COLUMNS)
        any_grouped_tile(panel, acts, tile, TILE_ROWS, halves, ahead, out);
    /* A constant, for the totals to stay in registers. */
    switch (acts->rows % TILE_ROWS) {
#if TILE_ROWS > 4
    case 5: LAST_TILE(5); break;
    case 4: LAST_TILE(4); break;
#endif
    case 3: LAST_TILE(3); break;
    case 2: LAST_TILE(2); break;
    case 1: LAST_TILE(1); break;
    }
}

/* Whether two matrices can be the sides of a panel. */
static int are_alike(const Grouping *left, const Grouping *right) {
    return left->halves == right->halves && left->zero == right->zero &&
           has_minimum(left) == has_minimum(right);
}

/* 16 rows of a matrix that become a side of panels. */
typedef struct {
    const Matrix *matrix;
    const uint8_t *rows;
    ScaleReader reader;
} Side;

static Side side_of(const Matrix *matrix, int64_t column) {
    const uint8_t *rows = grouped_rows(matrix, column);
    return (Side){matrix, rows, {.at = rows}};
}

/* Make the panel of the next piece; returns what is left to prefetch of the one after it. next: to
 * the rows of the next panel. */
static Ahead fill_panel(GroupedPanel *panel, Side sides[2], int64_t chunks, int64_t rows,
                        int64_t next) {
    Ahead ahead = {0};
    int64_t steps, bits = sides->matrix->grouping->bits;
    panel->chunks = MIN(CODE_PIECE / CODE_CHUNK, chunks - panel->first);
    for (int s = 0; s < 2; s++) {
        const Grouping *grouping = sides[s].matrix->grouping;
        read_scales(&sides[s].reader, grouping, panel->chunks * grouping->halves,
                    &panel->scale[0][s], &panel->minimum[0][s], 2);
        int is_last = panel->first + panel->chunks == chunks;
        ahead.at[s] = is_last ? sides[s].rows + next * sides[s].matrix->block_bytes
                              : sides[s].reader.at + panel->chunks * grouping->bits * 64;
    }
    steps = panel->chunks * (2 + (rows + TILE_ROWS - 1) / TILE_ROWS);
    ahead.lines = panel->chunks * (bits + 1);
    if (rows <= PREFETCH_MAX_ROWS) ahead.per_step = (ahead.lines + steps - 1) / steps;
    for (int s = 0; s < 2; s++) {
        fill_side(panel, s, sides[s].matrix, sides[s].reader.at, &ahead);
        sides[s].reader.at += panel->chunks * sides[s].matrix->grouping->bits * 64;
    }
    return ahead;
}

/* out[rows][32] of acts, and behind it of the second term. next: blocks of 16 rows to the next
 * panel. */
static void multiply_grouped_panels(const Activations *acts, const Activations *residual,
                                    Side sides[2], int64_t next, GroupedPanel *panel, float *out) {
    const Grouping *grouping = sides->matrix->grouping;
    int64_t chunks = chunks_of(acts->in);
    panel->zero = grouping->zero, panel->has_minimum = has_minimum(grouping);
    for (panel->first = 0; panel->first < chunks; panel->first += panel->chunks) {
        Ahead ahead = fill_panel(panel, sides, chunks, acts->rows, next);
        multiply_tiles_of(panel, acts, grouping->halves, &ahead, out);
        if (!residual) continue;
        multiply_tiles_of(panel, residual, grouping->halves, &ahead,
                          out + acts->rows * PANEL_COLUMNS);
    }
}
