/* Products with weights in groups of few bits (quantised/packed.py has their layout).
 *
 * Of a piece of columns, first the minima of all groups times the sums of the activations are taken
 * away, then the products of all groups are added, in order; the sum within a group is exact in
 * integers. Few rows and many rows do the same, so a row has the same bits in both. */
#pragma once
#include "grouped_dot.h"

#define AHEAD_BYTES 6144 /* from what is read to what is prefetched */

/* Whether there is a copy of a kernel for each layout, whose constants let the compiler keep codes
 * in registers. The checked build would take minutes to compile. */
#if (defined(USE_VNNI) || defined(USE_AVX2)) && !defined(LLMCHAT_CHECKED)
#define HAS_COPIES 1
#endif

/* The activations of one row. */
typedef struct {
    const act_t *q;
    const float *scale, *term;
    const int32_t *sum;
} ActRow;

INLINE ActRow act_row(const Activations *acts, int64_t row) {
    int64_t tile = row / acts->tile_rows, in_tile = row % acts->tile_rows;
    int64_t groups = tile * acts->groups * acts->tile_rows;
    return (ActRow){acts->q + tile * acts->tile_rows * acts->width + in_tile * LANE_ACTS,
                    acts->scale + groups + in_tile, acts->term + groups + in_tile,
                    acts->sum + 2 * groups + in_tile};
}

/* The start of the integer sum of a group, which takes `zero` from each code. sum: of the halves of
 * the chunk, arbitrary numbers for activations that are not finite; halves: groups of a chunk. */
INLINE int32_t start_of(int32_t zero, const int32_t *sum, int64_t half, const int halves,
                        int64_t stride) {
    uint32_t all = (uint32_t)sum[half * stride];
    if (halves == 1) all += (uint32_t)sum[stride];
    return (int32_t)(-(uint32_t)zero * all);
}

/* Minus the sum of the activations of a group. */
INLINE float term_of_group(const ActRow *row, int64_t chunk, int64_t half, const int halves,
                           int64_t stride) {
    if (halves == 1) return row->term[chunk * stride];
    return -(row->scale[chunk * stride] * row->sum[(2 * chunk + half) * stride]);
}

static int pairs_in(const Grouping *grouping) {
    return pairs_of(grouping->bits, grouping->has_table);
}

/* ---- few rows: the codes go from memory to the products; grouped_panels.h has many rows */

/* Of one matrix, 16 rows of it: what the products of a piece need. */
typedef struct {
    const Matrix *matrix;
    const uint8_t *codes;
    f32x16 scale[MOST_GROUPS], minimum[MOST_GROUPS];
    int64_t first, chunks; /* of the piece in the row */
} CodePiece;

INLINE void prefetch_ahead(const uint8_t *p, const int bytes) {
#pragma GCC unroll 8
    for (int i = 0; i < bytes; i += 64) __builtin_prefetch(p + AHEAD_BYTES + i, 0, 2);
}

/* As unpack_numbers; codes stay in registers where there are enough of them. */
INLINE void unpack_here(const Matrix *matrix, const uint8_t *p, const int bits, const int has_table,
                        codes_t codes[VECTORS]) {
#if defined(USE_AVX2)
#pragma GCC unroll 8
    for (int v = 0; v < VECTORS; v++) codes[v] = unpack_vector(matrix, p, bits, has_table, v);
#elif defined(HAS_COPIES)
    unpack_chunk(p, bits, codes);
    if (has_table)
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; v++) codes[v] = look_up(codes[v], matrix->weight);
#else
    unpack_numbers(matrix, p, codes, 1);
#endif
}

/* What is taken from each code: those that have no sums in 16 bits become signed first. */
INLINE int32_t zero_of(const Grouping *grouping, const int pairs) {
    return grouping->zero - (TAKES_SIGNED && !pairs ? 128 : 0);
}

/* out[count] += the products of the rows with a piece. */
INLINE void multiply_piece(const CodePiece *piece, const int bits, const int halves,
                           const int has_table, const ActRow *rows, const int64_t count,
                           const int64_t stride, totals_t *out) {
    const Grouping *grouping = piece->matrix->grouping;
    const int pairs = pairs_of(bits, has_table);
    const uint8_t *codes = piece->codes;
    totals_t totals[2 * TILE_ROWS]; /* in registers, where the count is a constant */
    for (int64_t r = 0; r < count; r++) totals[r] = out[r];
    if (has_minimum(grouping))
        for (int64_t g = 0; g < piece->chunks * halves; g++)
            for (int64_t r = 0; r < count; r++) {
                float term =
                    term_of_group(rows + r, piece->first + g / halves, g % halves, halves, stride);
                totals[r] = plus_minimum(totals[r], term, piece->minimum + g);
            }
    for (int64_t c = 0; c < piece->chunks; c++, codes += bits * 64) {
        codes_t unpacked[VECTORS];
        prefetch_ahead(codes, bits * 64);
        unpack_here(piece->matrix, codes, bits, has_table, unpacked);
        int64_t chunk = piece->first + c;
#pragma GCC unroll 2
        for (int h = 0; h < halves; h++) {
            sums_t sums[2 * TILE_ROWS];
            /* One column after the other: the products of a row wait for each other. */
            for (int64_t r = 0; r < count; r++)
                sums[r] = sums_from(start_of(zero_of(grouping, pairs),
                                             rows[r].sum + 2 * chunk * stride, h, halves, stride));
#pragma GCC unroll 8
            for (int v = h * VECTORS / halves; v < (h + 1) * VECTORS / halves; v++)
#pragma GCC unroll 6
                for (int64_t r = 0; r < count; r++) {
                    const act_t *q = rows[r].q + (chunk * CODE_CHUNK + 4 * v) * stride;
                    add_fours(&sums[r], unpacked + v, load_fours(q, stride, pairs), pairs,
                              v - h * VECTORS / halves, VECTORS / halves);
                }
            for (int64_t r = 0; r < count; r++)
                totals[r] = plus_products(totals[r], sums[r], rows[r].scale[chunk * stride],
                                          piece->scale + c * halves + h);
        }
    }
    for (int64_t r = 0; r < count; r++) out[r] = totals[r];
}

#define PIECE_OF_ROWS(bits, halves, table, rows_, stride_)                                         \
    case (rows_) * 8 + (stride_):                                                                  \
        multiply_piece(piece, bits, halves, table, rows, rows_, stride_, totals);                  \
        break
#define OTHER_PIECE(bits, halves, table)                                                           \
    default: multiply_piece(piece, bits, halves, table, rows, count, stride, totals)

/* One row, or one row in two terms, is what decoding multiplies. */
#define RARE_PIECE(bits, halves, table)                                                            \
    do {                                                                                           \
        switch (count * 8 + stride) {                                                              \
            PIECE_OF_ROWS(bits, halves, table, 1, 1);                                              \
            PIECE_OF_ROWS(bits, halves, table, 2, 1);                                              \
            OTHER_PIECE(bits, halves, table);                                                      \
        }                                                                                          \
    } while (0)

/* Some rows are a draft that is checked, or several answers. */
#if TILE_ROWS > 4
#define PIECES_OF_MOST_ROWS(bits, halves, table)                                                   \
    PIECE_OF_ROWS(bits, halves, table, 5, TILE_ROWS);                                              \
    PIECE_OF_ROWS(bits, halves, table, 6, TILE_ROWS)
#else
#define PIECES_OF_MOST_ROWS(bits, halves, table)
#endif
#define USUAL_PIECE(bits, halves, table)                                                           \
    do {                                                                                           \
        switch (count * 8 + stride) {                                                              \
            PIECE_OF_ROWS(bits, halves, table, 1, 1);                                              \
            PIECE_OF_ROWS(bits, halves, table, 2, 1);                                              \
            PIECE_OF_ROWS(bits, halves, table, 2, TILE_ROWS);                                      \
            PIECE_OF_ROWS(bits, halves, table, 3, TILE_ROWS);                                      \
            PIECE_OF_ROWS(bits, halves, table, 4, TILE_ROWS);                                      \
            PIECES_OF_MOST_ROWS(bits, halves, table);                                              \
            OTHER_PIECE(bits, halves, table);                                                      \
        }                                                                                          \
    } while (0)

/* Functions of their own: in one, they take a compiler much longer. table: 1 with AVX2, where the
 * numbers of a table are multiplied in another way than codes; else it may be any expression. */
#define PIECE_FUNCTION(name, bits, halves, table, KIND)                                            \
    static __attribute__((noinline)) void name(const CodePiece *piece, const ActRow *rows,         \
                                               int64_t count, int64_t stride, totals_t *totals) {  \
        KIND(bits, halves, table);                                                                 \
    }
#ifdef HAS_COPIES
#define HAS_TABLE (TAKES_SIGNED ? 0 : piece->matrix->grouping->has_table)
/* clang-format off */
PIECE_FUNCTION(piece_2_16, 2, 2, 0, RARE_PIECE) PIECE_FUNCTION(piece_2_32, 2, 1, 0, RARE_PIECE)
PIECE_FUNCTION(piece_3_16, 3, 2, 0, RARE_PIECE) PIECE_FUNCTION(piece_3_32, 3, 1, 0, RARE_PIECE)
PIECE_FUNCTION(piece_4_16, 4, 2, HAS_TABLE, RARE_PIECE)
PIECE_FUNCTION(piece_4_32, 4, 1, HAS_TABLE, USUAL_PIECE)
PIECE_FUNCTION(piece_5_16, 5, 2, 0, RARE_PIECE) PIECE_FUNCTION(piece_5_32, 5, 1, 0, USUAL_PIECE)
PIECE_FUNCTION(piece_6_16, 6, 2, 0, USUAL_PIECE) PIECE_FUNCTION(piece_6_32, 6, 1, 0, USUAL_PIECE)
PIECE_FUNCTION(piece_8_16, 8, 2, 0, RARE_PIECE) PIECE_FUNCTION(piece_8_32, 8, 1, 0, USUAL_PIECE)
#if TAKES_SIGNED
PIECE_FUNCTION(piece_table_16, 4, 2, 1, RARE_PIECE)
PIECE_FUNCTION(piece_table_32, 4, 1, 1, RARE_PIECE)
#endif
/* clang-format on */
#undef HAS_TABLE
#endif

/* For groups of 32 or more, and for groups of 16. */
#define PIECE_CASE(bits, WHOLE, HALF)                                                              \
    case bits: (halves == 2 ? HALF : WHOLE)(piece, rows, count, stride, totals); break;

                                static void multiply_any_piece(const CodePiece *piece,
                                                               const ActRow *rows, int64_t count,
                                                               int64_t stride, totals_t *totals) {
    const Grouping *grouping = piece->matrix->grouping;
    int halves = grouping->halves, bits = grouping->bits, has_table = grouping->has_table;
#ifdef HAS_COPIES
    switch (TAKES_SIGNED && has_table ? 0 : bits) {
        PIECE_CASE(2, piece_2_32, piece_2_16)
        PIECE_CASE(3, piece_3_32, piece_3_16)
        PIECE_CASE(4, piece_4_32, piece_4_16)
        PIECE_CASE(5, piece_5_32, piece_5_16)
        PIECE_CASE(6, piece_6_32, piece_6_16)
        PIECE_CASE(8, piece_8_32, piece_8_16)
#if TAKES_SIGNED
        PIECE_CASE(0, piece_table_32, piece_table_16)
#endif
    }
#else
    multiply_piece(piece, bits, halves, has_table, rows, count, stride, totals);
#endif
}

/* Where 16 rows from `column` on begin; the last ones for rows beyond the end. */
static const uint8_t *grouped_rows(const Matrix *matrix, int64_t column) {
    int64_t block = MIN(column, matrix->out - 1) / LANES;
    return (const uint8_t *)matrix->weight + 64 * matrix->grouping->has_table +
           block * matrix->block_bytes;
}

static int64_t chunks_of(int64_t in) { return (in + CODE_CHUNK - 1) / CODE_CHUNK; }

/* 16 outputs from `column` on of `count` rows from `first` on, each 32 numbers behind the one
 * before; residual: a second term of the same rows, or NULL. */
static void multiply_few_rows(const Activations *acts, const Activations *residual, int64_t first,
                              int64_t count, const Matrix *matrix, int64_t column, float *out) {
    const Grouping *grouping = matrix->grouping;
    int64_t terms = residual ? 2 * count : count, chunks = chunks_of(matrix->in);
    ActRow rows[2 * TILE_ROWS];
    totals_t totals[2 * TILE_ROWS] = {};
    CodePiece piece; /* 4 KiB, which would take time to clear */
    piece.matrix = matrix, piece.first = 0;
    ScaleReader reader = {.at = grouped_rows(matrix, column)};
    for (int64_t r = 0; r < terms; r++)
        rows[r] = r < count ? act_row(acts, first + r) : act_row(residual, first + r - count);
    for (; piece.first < chunks; piece.first += piece.chunks) {
        piece.chunks = MIN(CODE_PIECE / CODE_CHUNK, chunks - piece.first);
        const uint8_t *header = reader.at;
        read_scales(&reader, grouping, piece.chunks * grouping->halves, piece.scale, piece.minimum,
                    1);
        piece.codes = reader.at;
        /* Without this the next scales are waited for: decoding takes 1.4 times as long. */
        for (; header < piece.codes; header += CACHE_LINE)
            __builtin_prefetch(header + AHEAD_BYTES, 0, 2);
        multiply_any_piece(&piece, rows, terms, acts->tile_rows, totals);
        reader.at += piece.chunks * grouping->bits * 64;
    }
    for (int64_t r = 0; r < count; r++)
        store_totals(out + r * PANEL_COLUMNS,
                     residual ? plus_totals(totals[r], totals[count + r]) : totals[r]);
}
