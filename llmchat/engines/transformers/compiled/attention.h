/* Causal attention of a few queries over the keys and values of one head (after Dao et al. 2022, "FlashAttention").
 *
 * Keys are taken in spans of SPAN positions counted from the first: scores, softmax and weighted sum of a span, then the spans are merged in
 * order. A query sees the same spans whatever else is read, so its numbers are the same. */
#pragma once
#include "vectors.h"

#define SPAN 256
#define QUERIES 48 /* taken together: rows x heads that share keys */
#define BLOCK 384  /* that go through the keys together */

#ifdef USE_BF16
typedef bf16 Half; /* queries, keys, probabilities and values; sums in fp32 */
#define PAIR 2
#else
typedef float Half;
#define PAIR 1
#endif

/* Keys and values lie in a cache as products take them, in bfloat16, two neighbours of a sum side by side:
 *
 *     keys    [kv_heads][capacity / 16][head_dim / 2][16 keys][2]
 *     values  [kv_heads][capacity / SPAN][head_dim / 16][SPAN / 2][16 dimensions][2]
 *
 * So a span of one head is SPAN x head_dim numbers in one piece, and nothing is turned round when it is looked at. What lies behind the last key
 * is anything, for its scores are not used; a value's neighbour is a number, for it is multiplied with zero. */

/* Scratch of one thread. */
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

/* A key or a value [dim] at a position of its head. */
static void keep_key(bf16 *head, int64_t position, const float *key, int64_t dim) {
    bf16 *panel = head + position / LANES * LANES * dim + position % LANES * 2, half[LANES];
    for (int64_t d = 0; d < dim; d += LANES) {
        to_bf16(half, load(key + d));
        for (int64_t i = 0; i < LANES; i += 2) memcpy(panel + (d + i) * LANES, half + i, 2 * sizeof *half);
    }
}

static void keep_value(bf16 *head, int64_t position, const float *value, int64_t dim) {
    bf16 *pair = head + position / SPAN * SPAN * dim + position % SPAN / 2 * 2 * LANES;
    for (int64_t d = 0; d < dim; d += LANES, pair += SPAN * LANES) {
        H16 half;
        I16 both;
        to_bf16((bf16 *)&half, load(value + d));
        I16 mine = __builtin_convertvector(half, I16);
        memcpy(&both, pair, sizeof both);
        both = position % 2 ? (both & 0xffff) | mine << 16 : mine;
        memcpy(pair, &both, sizeof both);
    }
}

#ifndef USE_BF16
/* pairs [count][16][2] → [2 * count][16] */
static void unfold(const bf16 *pairs, int64_t count, float *out) {
    for (int64_t i = 0; i < count; i++) {
        I16 both;
        memcpy(&both, pairs + i * 2 * LANES, sizeof both);
        store(out + i * 2 * LANES, (F16)(both << 16));
        store(out + i * 2 * LANES + LANES, (F16)(both & (int32_t)0xffff0000));
    }
}
#endif

/* out[rows][blocks of 16] = a[rows][depth] times `blocks` panels. */
INLINE void half_tile(const Half *a, int64_t stride, const int rows, const int blocks, int64_t depth, const Half *panel, int64_t apart, float *out,
                      int64_t out_stride) {
    F16 total[6][4] = {};
    for (int64_t k = 0; k < depth; k += PAIR)
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
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
#pragma GCC unroll 4
        for (int b = 0; b < blocks; b++) store(out + r * out_stride + b * LANES, total[r][b]);
}

#define HALF_TILE(ROWS, BLOCKS) \
    static void half_tile_##ROWS##_##BLOCKS(const Half *a, int64_t stride, int64_t depth, const Half *panel, int64_t apart, float *out, int64_t out_stride) { \
        half_tile(a, stride, ROWS, BLOCKS, depth, panel, apart, out, out_stride); \
    }
HALF_TILE(1, 1) HALF_TILE(2, 1) HALF_TILE(3, 1) HALF_TILE(6, 1)
HALF_TILE(1, 2) HALF_TILE(2, 2) HALF_TILE(3, 2) HALF_TILE(6, 2)
HALF_TILE(1, 4) HALF_TILE(2, 4) HALF_TILE(3, 4)
#undef HALF_TILE

/* What is read next, to be asked for meanwhile. */
typedef struct {
    const Half *from;
    int64_t count;
} Wanted;

/* out[rows][width] = a[rows][depth] times panels, `apart` from each other. Few rows go through four panels at once: a sum has to wait for the one
 * before it, and others are made meanwhile. */
static void half_product(const Half *a, int64_t stride, int64_t rows, int64_t depth, const Half *panels, int64_t apart, int64_t width, float *out,
                         int64_t out_stride, Wanted wanted) {
    int64_t line = 64 / sizeof(Half), runs = UP(width, 2 * LANES) / (2 * LANES) * ((rows + 5) / 6), share = UP((wanted.count + runs - 1) / runs, line);
    const Half *ahead = wanted.from, *end = ahead + wanted.count;
    for (int64_t column = 0, blocks; column < width; column += blocks * LANES) {
        const Half *panel = panels + column / LANES * apart;
        blocks = rows <= 3 && width - column > 3 * LANES ? 4 : width - column > LANES ? 2 : 1;
        for (int64_t row = 0, left; (left = rows - row) > 0;) {
            const Half *from = a + row * stride;
            float *to = out + row * out_stride + column;
            for (const Half *until = MIN(ahead + share, end); ahead < until; ahead += line) __builtin_prefetch(ahead, 0, 2);
#define RUN(ROWS, BLOCKS) half_tile_##ROWS##_##BLOCKS(from, stride, depth, panel, apart, to, out_stride)
#define RUN_FEW(ROWS) (blocks == 4 ? RUN(ROWS, 4) : blocks == 2 ? RUN(ROWS, 2) : RUN(ROWS, 1), row += ROWS)
            if (left >= 6) blocks == 2 ? RUN(6, 2) : RUN(6, 1), row += 6;
            else if (left >= 3) RUN_FEW(3);
            else if (left >= 2) RUN_FEW(2);
            else RUN_FEW(1);
#undef RUN_FEW
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
        for (int64_t d = 0; d < dim; d += LANES) store(state + 2 + d, load(values + d));
        return;
    }
    float top = MAX(state[0], peak);
    F16 factors = exponential((F16){state[0] - top, peak - top});
    state[0] = top;
    state[1] = state[1] * factors[0] + weight * factors[1];
    for (int64_t d = 0; d < dim; d += LANES)
        store(state + 2 + d, load(state + 2 + d) * factors[0] + load(values + d) * factors[1]);
}

/* Queries over a span. keys, values: panels of it, see above, as Half. from: [queries, dim]; seen: keys that each query may look at, all in all. */
static void attend(const Attention *scratch, const Half *keys, const Half *values, const Half *from, int64_t queries, const int64_t *seen, int64_t dim,
                   float scale, int64_t span, float *const *states, int in_order) {
    int64_t last = 0;
    for (int64_t q = 0; q < queries; q++) last = MAX(last, seen[q] - span * SPAN);
    if (last <= 0) return;
    int64_t most = MIN(SPAN, last), next = MIN(SPAN, last - most), width = UP(most, LANES);
    half_product(from, dim, queries, dim, keys, dim * LANES, width, scratch->scores, SPAN, (Wanted){values, most * dim});
    float peaks[QUERIES], weights[QUERIES];
    for (int64_t q = 0; q < queries; q++) {
        int64_t mine = MAX(0, MIN(SPAN, seen[q] - span * SPAN));
        weights[q] = soften(scratch->scores + q * SPAN, mine, width, scale, scratch->weights + q * SPAN, &peaks[q]);
    }
    half_product(scratch->weights, SPAN, queries, UP(most, PAIR), values, SPAN * LANES, dim, scratch->sums, dim,
                 (Wanted){keys + SPAN * dim, next * dim});
    for (int64_t q = 0; q < queries; q++)
        if (seen[q] > span * SPAN) merge(states[q], peaks[q], weights[q], scratch->sums + q * dim, dim, !in_order || span == 0);
}
