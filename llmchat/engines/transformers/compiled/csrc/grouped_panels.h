/* Products of many rows with weights in groups of few bits: the codes of a piece are unpacked once,
 * to a panel in the cache. A row has the same bits as among few rows, see grouped.h. */
#pragma once
#include "grouped.h"

/* Of 32 outputs: the 16 of `left` and of `right` alternate. */
typedef struct {
    u8x64 codes[CODE_PIECE / 4][2];
    f32x16 scale[MOST_GROUPS][2], minimum[MOST_GROUPS][2];
    int64_t first, chunks; /* of the piece in the rows */
    int32_t zero, has_minimum, halves, pairs;
} GroupedPanel;

_Static_assert(sizeof(GroupedPanel) <= PANEL_BYTES, "it takes the memory of a panel");

/* Sides of a panel that a tile multiplies at once: as many as there are registers for. */
#ifdef USE_AVX2
#define TILE_SIDES 1
#else
#define TILE_SIDES 2
#endif

/* What is prefetched while a panel is made and used: `lines` of both sides, `per_step` each time.
 * tile: from the activations of a tile to those of the next. */
typedef struct {
    const uint8_t *at[2];
    int64_t line, lines, per_step, tile;
} Ahead;

INLINE void prefetch_some(Ahead *ahead) {
    int64_t end = MIN(ahead->line + ahead->per_step, ahead->lines);
    for (; ahead->line < end; ahead->line++) {
        __builtin_prefetch(ahead->at[0] + ahead->line * CACHE_LINE, 0, 2);
        __builtin_prefetch(ahead->at[1] + ahead->line * CACHE_LINE, 0, 2);
    }
}

/* A chunk of the activations of the next tile. Those of many long rows are only in the L3 cache:
 * products of 544 rows of 8,960 take a tenth less time on a Zen 3. */
INLINE void prefetch_tile(const Ahead *ahead, const act_t *q) {
#ifdef USE_HALVES
    for (int i = 0; i < CODE_CHUNK * TILE_ROWS; i += CACHE_LINE)
        __builtin_prefetch(q + ahead->tile + i, 0, 2);
#endif
}

/* The codes of one side of a panel. */
static void fill_side(GroupedPanel *panel, int side, const Matrix *matrix, const uint8_t *codes,
                      Ahead *ahead) {
    for (int64_t c = 0; c < panel->chunks; c++, codes += matrix->grouping->bits * 64) {
        prefetch_some(ahead);
        unpack_numbers(matrix, codes, &panel->codes[c * VECTORS][side], 2);
    }
}

/* total -= the minima of all groups times the sums of the activations. side: the first one. */
INLINE void subtract_minima(const GroupedPanel *panel, const ActRow *first, const int rows,
                            const int halves, int side, totals_t total[TILE_ROWS][TILE_SIDES]) {
    for (int64_t g = 0; g < panel->chunks * halves; g++)
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) {
            ActRow row = {first->q, first->scale + r, first->term + r, first->sum + r};
            float term =
                term_of_group(&row, panel->first + g / halves, g % halves, halves, TILE_ROWS);
#pragma GCC unroll 2
            for (int s = 0; s < TILE_SIDES; s++)
                total[r][s] = plus_minimum(total[r][s], term, &panel->minimum[g][side + s]);
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

/* out[rows][32] (+)= the rows of a tile times the sides of a panel from `side` on. starts: of the
 * integer sums, or NULL for zeros. pairs: see pairs_of. */
INLINE void grouped_sides(const GroupedPanel *panel, const ActRow *row, const int rows,
                          const int halves, const int pairs, const int32_t *starts, int side,
                          Ahead *ahead, float *out) {
    totals_t total[TILE_ROWS][TILE_SIDES];
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int s = 0; s < TILE_SIDES; s++)
            total[r][s] =
                panel->first ? load_totals(out + r * 32 + (side + s) * LANES) : (totals_t){0};
    if (panel->has_minimum) subtract_minima(panel, row, rows, halves, side, total);
    const act_t *q = row->q + panel->first * CODE_CHUNK * TILE_ROWS;
    const float *scales = row->scale + panel->first * TILE_ROWS;
    const u8x64(*codes)[2] = panel->codes;
    const f32x16(*scale)[2] = panel->scale;
    for (int64_t c = 0; c < panel->chunks; c++, scales += TILE_ROWS) {
        prefetch_some(ahead);
        prefetch_tile(ahead, q);
#pragma GCC unroll 2
        for (int h = 0; h < halves; h++, scale++) {
            sums_t sums[TILE_ROWS][TILE_SIDES];
#pragma GCC unroll 6
            for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
                for (int s = 0; s < TILE_SIDES; s++) sums[r][s] = sums_from(starts ? starts[r] : 0);
            if (starts) starts += TILE_ROWS;
#pragma GCC unroll 8
            for (int v = 0; v < VECTORS / halves; v++, q += 4 * TILE_ROWS, codes++) {
                codes_t loaded[TILE_SIDES];
#pragma GCC unroll 2
                for (int s = 0; s < TILE_SIDES; s++)
                    loaded[s] = load_vector(&codes[0][side + s], pairs);
#pragma GCC unroll 6
                for (int r = 0; r < rows; r++) {
                    fours_t x = load_fours(q + r * LANE_ACTS, TILE_ROWS, pairs);
#pragma GCC unroll 2
                    for (int s = 0; s < TILE_SIDES; s++)
                        add_fours(&sums[r][s], &loaded[s], x, pairs, v, VECTORS / halves);
                }
            }
#pragma GCC unroll 6
            for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
                for (int s = 0; s < TILE_SIDES; s++)
                    total[r][s] =
                        plus_products(total[r][s], sums[r][s], scales[r], &scale[0][side + s]);
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int s = 0; s < TILE_SIDES; s++)
            store_totals(out + r * 32 + (side + s) * LANES, total[r][s]);
}

/* Both sides. has_zero: whether the zero of the panel is not 0. */
INLINE void grouped_tile(const GroupedPanel *panel, const Activations *acts, int64_t tile,
                         const int rows, const int halves, const int pairs, const int has_zero,
                         Ahead *ahead, float *out) {
    ActRow row = act_row(acts, tile * TILE_ROWS);
    int32_t starts[MOST_GROUPS * TILE_ROWS];
    const int32_t *from = has_zero && panel->zero ? starts : NULL;
    if (from) find_starts(panel, acts, &row, halves, starts);
    for (int side = 0; side < 2; side += TILE_SIDES)
        grouped_sides(panel, &row, rows, halves, pairs, from, side, ahead, out);
}

#define TILE_OF(rows) grouped_tile(panel, acts, tile, rows, halves, pairs, has_zero, ahead, out)

/* All rows of the activations times a panel. */
INLINE void multiply_all_tiles(const GroupedPanel *panel, const Activations *acts, const int halves,
                               const int pairs, const int has_zero, Ahead *ahead, float *out) {
    int64_t tile = 0;
    for (; tile < acts->rows / TILE_ROWS; tile++, out += TILE_ROWS * PANEL_COLUMNS)
        TILE_OF(TILE_ROWS);
    /* A constant, for the totals to stay in registers. */
    switch (acts->rows % TILE_ROWS) {
#if TILE_ROWS > 4
    case 5: TILE_OF(5); break;
    case 4: TILE_OF(4); break;
#endif
    case 3: TILE_OF(3); break;
    case 2: TILE_OF(2); break;
    case 1: TILE_OF(1); break;
    }
}

/* Functions of their own, as the pieces of grouped.h. */
#define TILES_FUNCTION(name, halves, pairs, has_zero)                                              \
    static __attribute__((noinline)) void name(const GroupedPanel *panel, const Activations *acts, \
                                               Ahead *ahead, float *out) {                         \
        multiply_all_tiles(panel, acts, halves, pairs, has_zero, ahead, out);                      \
    }
#if !defined(HAS_COPIES)
TILES_FUNCTION(any_tiles, panel->halves, panel->pairs, 1)
#elif defined(USE_AVX2)
TILES_FUNCTION(tiles_16_8, 2, 8, 1)
TILES_FUNCTION(tiles_16_2, 2, 2, 1)
TILES_FUNCTION(tiles_16_any, 2, panel->pairs, 1)
TILES_FUNCTION(tiles_32_8, 1, 8, 1)
TILES_FUNCTION(tiles_32_4, 1, 4, 1)
TILES_FUNCTION(tiles_32_2, 1, 2, 1)
TILES_FUNCTION(tiles_32_signed, 1, 0, 1)
#else
TILES_FUNCTION(tiles_16, 2, 0, 1)
TILES_FUNCTION(tiles_32_zero, 1, 0, 1)
TILES_FUNCTION(tiles_32, 1, 0, 0)
#endif

typedef void (*TilesFunction)(const GroupedPanel *, const Activations *, Ahead *, float *);

static TilesFunction tiles_function(const GroupedPanel *panel) {
#if !defined(HAS_COPIES)
    return any_tiles;
#elif defined(USE_AVX2)
    int pairs = panel->pairs;
    if (panel->halves == 2) return pairs == 8 ? tiles_16_8 : pairs == 2 ? tiles_16_2 : tiles_16_any;
    return pairs == 8   ? tiles_32_8
           : pairs == 4 ? tiles_32_4
           : pairs == 2 ? tiles_32_2
                        : tiles_32_signed;
#else
    return panel->halves == 2 ? tiles_16 : panel->zero ? tiles_32_zero : tiles_32;
#endif
}

/* Whether two matrices can be the sides of a panel. */
static int are_alike(const Grouping *left, const Grouping *right) {
    return left->halves == right->halves && left->zero == right->zero &&
           has_minimum(left) == has_minimum(right) && pairs_in(left) == pairs_in(right);
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
    panel->pairs = pairs_in(grouping), panel->has_minimum = has_minimum(grouping);
    panel->zero = zero_of(grouping, panel->pairs), panel->halves = grouping->halves;
    TilesFunction multiply_tiles_of = tiles_function(panel);
    for (panel->first = 0; panel->first < chunks; panel->first += panel->chunks) {
        Ahead ahead = fill_panel(panel, sides, chunks, acts->rows, next);
        ahead.tile = acts->width * TILE_ROWS;
        multiply_tiles_of(panel, acts, &ahead, out);
        if (residual) multiply_tiles_of(panel, residual, &ahead, out + acts->rows * PANEL_COLUMNS);
    }
}
