/* Products of queries and softmax numerators with keys and values of 8 bits (kv_int8.h), where the
 * processor has an instruction for sums of products of bytes. The other factor has 16 bits, in two
 * bytes, so that nearly all of the error is that of the cache. Integer sums are exact: a row's
 * numbers do not depend on the rows beside it. */
#pragma once
#include "attention_kernel.h"

#ifdef USE_VNNI
#include "products.h"

#define SPLIT_MOST 32639.0f /* 127 * 256 + 127 */

/* Where the bytes of a row of `depth` numbers begin. */
static int8_t *split_row(const SplitRows *rows, int64_t row, int64_t depth) {
    return rows->bytes + row * 2 * depth;
}

/* Write 16 numbers of 16 bits, already integers; returns the sums of their high and low bytes. */
INLINE void store_split(int8_t *out, i32x16 number, i32x16 *high_sum, i32x16 *low_sum) {
    i32x16 low = ((number + 128) & 255) - 128, high = (number - low) >> 8;
    __m128i h = _mm512_cvtepi32_epi8((__m512i)high), l = _mm512_cvtepi32_epi8((__m512i)low);
    _mm_storeu_si128((__m128i *)out, _mm_unpacklo_epi32(h, l));
    _mm_storeu_si128((__m128i *)out + 1, _mm_unpackhi_epi32(h, l));
    *high_sum += high, *low_sum += low;
}

/* Split x * factor, [count], a multiple of 16, into row `row`, in groups of `group` with start
 * values of their own. */
static void split_numbers(const SplitRows *rows, int64_t row, const float *x, float factor,
                          int64_t count, int64_t group) {
    int64_t groups = (count + group - 1) / group;
    int32_t *offsets = rows->offsets + row * groups * 2;
    int8_t *out = split_row(rows, row, count);
    f32x16 peaks = {};
    for (int64_t i = 0; i < count; i += LANES) peaks = vector_max(vector_abs(load(x + i)), peaks);
    float peak = reduce_max(peaks), inverse = peak >= 1e-30f ? SPLIT_MOST / peak : 0.0f;
    rows->scale[row] = peak / SPLIT_MOST * factor;
    for (int64_t first = 0; first < count; first += group, offsets += 2) {
        i32x16 high = {}, low = {};
        for (int64_t i = first; i < MIN(first + group, count); i += LANES)
            store_split(out + 2 * i, round_to_i32(load(x + i) * inverse), &high, &low);
        offsets[0] = -128 * _mm512_reduce_add_epi32((__m512i)high);
        offsets[1] = -128 * _mm512_reduce_add_epi32((__m512i)low);
    }
}

/* sums[rows][blocks][high or low] += rows of split numbers, `stride` apart, times `quads` times
 * four codes of `blocks` panels of 16 columns, `panel_stride` apart. */
INLINE void add_codes(__m512i sums[6][4][2], const int8_t *x, int64_t stride, const int rows,
                      const int blocks, int64_t quads, const uint8_t *panel,
                      int64_t panel_stride) {
    for (int64_t k = 0; k < quads; k++) {
        __m512i codes[4];
#pragma GCC unroll 4
        for (int b = 0; b < blocks; b++)
            codes[b] = _mm512_loadu_si512(panel + b * panel_stride + k * 64);
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) {
            int32_t both[2];
            memcpy(both, x + r * stride + k * 8, sizeof both);
            __m512i high = _mm512_set1_epi32(both[0]), low = _mm512_set1_epi32(both[1]);
#pragma GCC unroll 4
            for (int b = 0; b < blocks; b++) {
                add_products(&sums[r][b][0], codes[b], high);
                add_products(&sums[r][b][1], codes[b], low);
            }
        }
    }
}

INLINE void begin_sums(__m512i sums[6][4][2], const int32_t *offsets, int64_t stride,
                       const int rows, const int blocks) {
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int b = 0; b < blocks; b++)
#pragma GCC unroll 2
            for (int half = 0; half < 2; half++)
                sums[r][b][half] = _mm512_set1_epi32(offsets[r * stride + half]);
}

INLINE f32x16 joined(const __m512i sums[2]) {
    return fused_madd((f32x16)_mm512_cvtepi32_ps(sums[0]), splat(256.0f),
                      (f32x16)_mm512_cvtepi32_ps(sums[1]));
}

/* What a tile multiplies: rows from number `row` on with a span of keys, or of values from one
 * dimension on. out: of its first row. */
typedef struct {
    const SplitRows *x;
    int64_t row, depth;
    const uint8_t *codes;
    const bf16 *scales;
    float *out;
    int64_t out_stride;
} SplitTile;

/* Scores of rows with `blocks` panels of keys. */
INLINE void key_tile(const SplitTile *tile, const int rows, const int blocks) {
    int64_t dim = tile->depth, groups = cache_groups(dim);
    const int8_t *x = split_row(tile->x, tile->row, dim);
    const int32_t *offsets = tile->x->offsets + tile->row * groups * 2;
    const uint8_t *codes = tile->codes;
    f32x16 total[6][4] = {};
    for (int64_t g = 0; g < groups; g++) {
        int64_t count = MIN(CACHE_GROUP, dim - g * CACHE_GROUP);
        __m512i sums[6][4][2];
        begin_sums(sums, offsets + 2 * g, 2 * groups, rows, blocks);
        add_codes(sums, x, 2 * dim, rows, blocks, count / 4, codes, dim * LANES);
#pragma GCC unroll 4
        for (int b = 0; b < blocks; b++) {
            f32x16 scale = load_bf16(tile->scales + (b * groups + g) * LANES);
#pragma GCC unroll 6
            for (int r = 0; r < rows; r++)
                total[r][b] = fused_madd(joined(sums[r][b]), scale, total[r][b]);
        }
        x += 2 * count, codes += count * LANES;
    }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int b = 0; b < blocks; b++)
            store(tile->out + r * tile->out_stride + b * LANES,
                  total[r][b] * tile->x->scale[tile->row + r]);
}

/* Sums of `depth` values, for `blocks` times 16 dimensions. */
INLINE void value_tile(const SplitTile *tile, const int rows, const int blocks) {
    __m512i sums[6][4][2];
    begin_sums(sums, tile->x->offsets + tile->row * 2, 2, rows, blocks);
    add_codes(sums, split_row(tile->x, tile->row, tile->depth), 2 * tile->depth, rows, blocks,
              tile->depth / 4, tile->codes, SPAN * LANES);
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int b = 0; b < blocks; b++)
            store(tile->out + r * tile->out_stride + b * LANES,
                  joined(sums[r][b]) * tile->x->scale[tile->row + r]);
}

/* Rows and blocks must be constants for the accumulators to stay in registers. */
#define SPLIT_TILE(KIND, ROWS, BLOCKS)                                                             \
    static __attribute__((noinline)) void KIND##_##ROWS##_##BLOCKS(const SplitTile *tile) {        \
        KIND(tile, ROWS, BLOCKS);                                                                  \
    }
#define SPLIT_TILES(KIND, BLOCKS)                                                                  \
    SPLIT_TILE(KIND, 1, BLOCKS)                                                                    \
    SPLIT_TILE(KIND, 2, BLOCKS)                                                                    \
    SPLIT_TILE(KIND, 3, BLOCKS)                                                                    \
    SPLIT_TILE(KIND, 6, BLOCKS)                                                                    \
    static void KIND##_of_##BLOCKS(const SplitTile *tile, int64_t rows) {                          \
        rows == 6   ? KIND##_6_##BLOCKS(tile)                                                      \
        : rows == 3 ? KIND##_3_##BLOCKS(tile)                                                      \
        : rows == 2 ? KIND##_2_##BLOCKS(tile)                                                      \
                    : KIND##_1_##BLOCKS(tile);                                                     \
    }
/* clang-format off */
SPLIT_TILES(key_tile, 1) SPLIT_TILES(key_tile, 2) SPLIT_TILE(key_tile, 1, 4)
SPLIT_TILES(value_tile, 1) SPLIT_TILES(value_tile, 2)
/* clang-format on */
#undef SPLIT_TILES
#undef SPLIT_TILE

static int64_t tile_rows(int64_t left) { return left >= 6 ? 6 : MIN(left, 3); }

/* Memory that is read next, to be prefetched in parts. */
typedef struct {
    const char *at, *end;
    int64_t part;
} SpanPrefetch;

static SpanPrefetch prefetch_later(const void *start, int64_t bytes, int64_t parts) {
    return (SpanPrefetch){start, (const char *)start + bytes, (bytes + parts - 1) / parts};
}

INLINE void prefetch_part(SpanPrefetch *next) {
    for (const char *until = MIN(next->at + next->part, next->end); next->at < until;
         next->at += 64)
        __builtin_prefetch(next->at, 0, 2);
}

/* Scores of `queries` split rows from number `first` on with `width` keys, [queries][SPAN]. */
static void score_codes(const SplitRows *x, int64_t first, int64_t queries, int64_t dim,
                        const uint8_t *keys, int64_t width, float *scores, SpanPrefetch next) {
    int64_t groups = cache_groups(dim), blocks;
    const bf16 *scales = (const bf16 *)(keys + SPAN * dim);
    for (int64_t key = 0; key < width; key += blocks * LANES) {
        blocks = queries == 1 && width - key > 3 * LANES ? 4 : width - key > LANES ? 2 : 1;
        SplitTile tile = {x, first, dim, keys + key * dim, scales + key * groups, scores + key,
                          SPAN};
        prefetch_part(&next);
        for (int64_t left = queries, rows; left > 0; left -= rows, tile.row += rows) {
            rows = tile_rows(left);
            blocks == 4   ? key_tile_1_4(&tile)
            : blocks == 2 ? key_tile_of_2(&tile, rows)
                          : key_tile_of_1(&tile, rows);
            tile.out += rows * SPAN;
        }
    }
}

/* Split the numerators [seen] of a row, times the scales of their values, into row `row`. width:
 * seen, rounded up to vectors. */
static void split_numerators(const SplitRows *rows, int64_t row, const float *numerators,
                             const bf16 *scales, int64_t seen, int64_t width) {
    const i32x16 lanes = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    float x[SPAN];
    for (int64_t i = 0; i < width; i += LANES) {
        f32x16 scaled = load(numerators + i) * load_bf16(scales + i);
        store(x + i, blend(lanes < (int32_t)(seen - i), scaled, (f32x16){}));
    }
    split_numbers(rows, row, x, 1.0f, width, SPAN);
}

/* out[queries][dim] = numerators [queries][SPAN] times the first `count` values. seen: the values
 * that each query sees of them. */
static void sum_codes(const SplitRows *x, const float *numerators, const int64_t *seen,
                      int64_t queries, int64_t dim, const uint8_t *values, int64_t count,
                      float *out, SpanPrefetch next) {
    int64_t width = ROUND_UP(count, LANES), blocks;
    const bf16 *scales = (const bf16 *)(values + SPAN * dim);
    for (int64_t d = 0; d < dim; d += blocks * LANES) {
        if (d % CACHE_GROUP == 0)
            for (int64_t q = 0; q < queries; q++)
                split_numerators(x, q, numerators + q * SPAN, scales + d / CACHE_GROUP * SPAN,
                                 seen[q], width);
        blocks = MIN(CACHE_GROUP - d % CACHE_GROUP, dim - d) > LANES ? 2 : 1;
        SplitTile tile = {x, 0, width, values + d * SPAN, NULL, out + d, dim};
        prefetch_part(&next);
        for (int64_t left = queries, rows; left > 0; left -= rows, tile.row += rows) {
            rows = tile_rows(left);
            blocks == 2 ? value_tile_of_2(&tile, rows) : value_tile_of_1(&tile, rows);
            tile.out += rows * dim;
        }
    }
}

/* As exponentiate, in place. */
static __attribute__((noinline)) float exponentiate_floats(float *scores, int64_t seen,
                                                           int64_t width, float scale,
                                                           float *peak) {
    return exponentiate_as(scores, seen, width, scale, scores, 1, peak);
}
#endif
