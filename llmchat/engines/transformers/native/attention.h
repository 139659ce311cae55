/* Causal attention of a few queries over the keys and values of one head (after Dao et al. 2022, "FlashAttention").
 *
 * Keys are taken in spans of SPAN positions counted from the first: scores, softmax and weighted sum of a span, then the spans are merged in
 * order. A query sees the same spans whatever else is read, so its numbers are the same. */
#pragma once
#include "vectors.h"

#define SPAN 256
#define KEYS_AHEAD 48
#define QUERIES 48 /* taken together: rows x heads that share keys */
#define BLOCK 384  /* that share one packing of the keys */

#ifdef USE_BF16
typedef bf16 Half; /* queries, keys, probabilities and values; sums in fp32 */
#define PAIR 2
#else
typedef float Half;
#define PAIR 1
#endif

/* Scratch of one thread. Panels: [head_dim / PAIR][16][PAIR] for 16 keys, [SPAN / PAIR][16][PAIR] for 16 dimensions of the values. */
typedef struct {
    Half *keys, *values, *queries, *weights;
    float *scores, *sums;
} Attention;

INLINE void to_half(Half *p, F16 v) {
#ifdef USE_BF16
    to_bf16(p, v);
#else
    store(p, v);
#endif
}

/* keys: [count, head_dim] → panels of 16 keys each; what is missing to a multiple of 32 is zero. The keys after these and the values, which
 * are packed next, are asked for meanwhile: memory takes longer than all the rest. */
static void pack_keys(const bf16 *keys, const bf16 *values, int64_t count, int64_t dim, Half *panels) {
    for (int64_t first = 0; first < UP(count, 32); first += LANES, panels += dim * LANES) {
        for (int64_t i = first * dim; i < (first + LANES) * dim; i += 64 / sizeof(bf16)) {
            __builtin_prefetch(keys + KEYS_AHEAD * dim + i, 0, 2);
            __builtin_prefetch(values + i, 0, 2);
        }
#ifdef USE_BF16
        for (int64_t d = 0; d < dim; d += 32) {
            __m512i rows[LANES];
            __mmask32 mask = dim - d >= 32 ? ~0u : 0xffffu;
            for (int i = 0; i < LANES; i++)
                rows[i] = first + i < count ? _mm512_maskz_loadu_epi16(mask, keys + (first + i) * dim + d) : _mm512_setzero_si512();
            transpose(rows);
            for (int i = 0; i < MIN(LANES, (dim - d) / 2); i++) _mm512_storeu_si512(panels + (d / 2 + i) * 32, rows[i]);
        }
#else
        for (int i = 0; i < LANES; i++)
            for (int64_t d = 0; d < dim; d += LANES) {
                F16 part = first + i < count ? from_bf16(keys + (first + i) * dim + d) : (F16){};
                for (int lane = 0; lane < LANES; lane++) panels[(d + lane) * LANES + i] = part[lane];
            }
#endif
    }
}

/* values: [count, head_dim] → panels of 16 dimensions each. */
static void pack_values(const bf16 *values, int64_t count, int64_t dim, Half *panels) {
    for (int64_t d = 0; d < dim; d += LANES, panels += SPAN * LANES)
        for (int64_t i = 0; i < UP(count, 32); i += PAIR) {
#ifdef USE_BF16
            __m256i none = _mm256_setzero_si256();
            __m256i even = i < count ? _mm256_loadu_si256((const __m256i *)(values + i * dim + d)) : none;
            __m256i odd = i + 1 < count ? _mm256_loadu_si256((const __m256i *)(values + (i + 1) * dim + d)) : none;
            __m512i both = _mm512_or_si512(_mm512_cvtepu16_epi32(even), _mm512_slli_epi32(_mm512_cvtepu16_epi32(odd), 16));
            _mm512_storeu_si512(panels + i * LANES, both);
#else
            store(panels + i * LANES, i < count ? from_bf16(values + i * dim + d) : (F16){});
#endif
        }
}

/* out[rows][blocks of 16] = a[rows][depth] times `blocks` panels. */
INLINE void half_tile(const Half *a, int64_t stride, const int rows, const int blocks, int64_t depth, const Half *panel, int64_t apart, float *out,
                      int64_t out_stride) {
    F16 total[6][2] = {};
    for (int64_t k = 0; k < depth; k += PAIR)
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
            for (int b = 0; b < blocks; b++) {
#ifdef USE_BF16
                int32_t pair;
                memcpy(&pair, a + r * stride + k, 4);
                __m512i w = _mm512_loadu_si512(panel + b * apart + k * LANES);
                total[r][b] = (F16)_mm512_dpbf16_ps((__m512)total[r][b], (__m512bh)_mm512_set1_epi32(pair), (__m512bh)w);
#else
                total[r][b] = madd(all(a[r * stride + k]), load(panel + b * apart + k * LANES), total[r][b]);
#endif
            }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int b = 0; b < blocks; b++) store(out + r * out_stride + b * LANES, total[r][b]);
}

#define HALF_TILE(ROWS, BLOCKS) \
    static void half_tile_##ROWS##_##BLOCKS(const Half *a, int64_t stride, int64_t depth, const Half *panel, int64_t apart, float *out, int64_t out_stride) { \
        half_tile(a, stride, ROWS, BLOCKS, depth, panel, apart, out, out_stride); \
    }
HALF_TILE(1, 1) HALF_TILE(2, 1) HALF_TILE(3, 1) HALF_TILE(6, 1)
HALF_TILE(1, 2) HALF_TILE(2, 2) HALF_TILE(3, 2) HALF_TILE(6, 2)
#undef HALF_TILE

/* out[rows][width] = a[rows][depth] times panels, `apart` from each other. */
static void half_product(const Half *a, int64_t stride, int64_t rows, int64_t depth, const Half *panels, int64_t apart, int64_t width, float *out,
                         int64_t out_stride) {
    for (int64_t column = 0; column < width; column += 2 * LANES) {
        const Half *panel = panels + column / LANES * apart;
        int two = width - column > LANES;
        for (int64_t row = 0, left; (left = rows - row) > 0;) {
            const Half *from = a + row * stride;
            float *to = out + row * out_stride + column;
#define RUN(ROWS) \
    (two ? half_tile_##ROWS##_2(from, stride, depth, panel, apart, to, out_stride) : half_tile_##ROWS##_1(from, stride, depth, panel, apart, to, out_stride), row += ROWS)
            if (left >= 6) RUN(6);
            else if (left >= 3) RUN(3);
            else if (left >= 2) RUN(2);
            else RUN(1);
#undef RUN
        }
    }
}

/* Scores of `seen` keys → probabilities up to a factor, zero from there to `width`. Returns their sum; *peak is the score that counts as 1. */
static __attribute__((noinline)) float soften(const float *scores, int64_t seen, int64_t width, float scale, Half *out, float *peak) {
    const I16 lanes = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    int64_t whole = seen / LANES * LANES, i;
    F16 none = all(-__builtin_inff()), peaks = none, sums = {}, last = none;
    if (whole < seen) last = choose(lanes < (int32_t)(seen - whole), load(scores + whole), none);
    for (i = 0; i < whole; i += LANES) peaks = larger(load(scores + i), peaks);
    float top = largest(larger(last, peaks)), steep = scale * 1.44269504f;
    *peak = top * scale;
    F16 by = all(steep), less = all(-top * steep);
    for (i = 0; i < whole; i += LANES) {
        F16 p = vanishing(madd(load(scores + i), by, less));
        sums += p;
        to_half(out + i, p);
    }
    if (whole < seen) {
        F16 p = choose(lanes < (int32_t)(seen - whole), vanishing(madd(last, by, less)), (F16){});
        sums += p;
        to_half(out + i, p);
        i += LANES;
    }
    for (; i < width; i += LANES) to_half(out + i, (F16){});
    return sum(sums);
}

/* State of a query over the spans so far: peak, sum, weighted sum of values [dim]. */
static __attribute__((noinline)) void merge(float *state, float peak, float weight, const float *values, int64_t dim, int first) {
    if (first) {
        state[0] = peak, state[1] = weight;
        memcpy(state + 2, values, dim * sizeof *values);
        return;
    }
    float top = MAX(state[0], peak);
    F16 factors = exponential((F16){state[0] - top, peak - top});
    state[0] = top;
    state[1] = state[1] * factors[0] + weight * factors[1];
    for (int64_t d = 0; d < dim; d += LANES)
        store(state + 2 + d, load(state + 2 + d) * factors[0] + load(values + d) * factors[1]);
}

/* Queries over the span that lies packed in scratch. from: [queries, dim]; seen: keys that each query may look at, all in all. */
static void attend(const Attention *scratch, const Half *from, int64_t queries, const int64_t *seen, int64_t dim, float scale, int64_t span,
                   float *const *states, int in_order) {
    int64_t most = 0;
    for (int64_t q = 0; q < queries; q++) most = MAX(most, MIN(SPAN, seen[q] - span * SPAN));
    if (most <= 0) return;
    int64_t width = UP(most, 32);
    half_product(from, dim, queries, dim, scratch->keys, dim * LANES, width, scratch->scores, SPAN);
    float peaks[QUERIES], weights[QUERIES];
    for (int64_t q = 0; q < queries; q++) {
        int64_t mine = MAX(0, MIN(SPAN, seen[q] - span * SPAN));
        weights[q] = soften(scratch->scores + q * SPAN, mine, width, scale, scratch->weights + q * SPAN, &peaks[q]);
    }
    half_product(scratch->weights, SPAN, queries, width, scratch->values, SPAN * LANES, dim, scratch->sums, dim);
    for (int64_t q = 0; q < queries; q++)
        if (seen[q] > span * SPAN) merge(states[q], peaks[q], weights[q], scratch->sums + q * dim, dim, !in_order || span == 0);
}
