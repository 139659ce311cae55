/* The parts of attention over a span of keys and values of one head, with an online
 * softmax (after Dao et al. 2022, "FlashAttention").
 *
 * Spans are counted from the first position and merged in order. A query sees the same spans
 * whatever else is in the pass, so its numbers are the same. */
#pragma once
#include "kv_int8.h"

#define QUERY_TILE 48   /* queries (rows x heads that share keys) that take a span together */
#define QUERY_BLOCK 384 /* queries for which a thread reads the keys once */

/* Rows of numbers of 16 bits, each as a high and a low byte: x = (256 * high + low) * scale. bytes:
 * [rows][depth / 4][high or low][4]; offsets: [rows][groups][high or low], the start values of
 * integer sums, which cancel the 128 of each code of kv_int8.h; scale: [rows]. */
typedef struct {
    int8_t *bytes;
    int32_t *offsets;
    float *scale;
} SplitRows;

/* Scratch memory of one thread. keys, values: a span in fp32, where half_t is float. queries8,
 * weights8: those of a cache of 8 bits, where there is an instruction for their products. */
typedef struct {
    half_t *keys, *values, *queries, *probabilities;
    float *scores, *sums;
    SplitRows queries8, weights8;
} AttentionScratch;

/* out[rows][blocks of 16] = a[rows][depth] times `blocks` panels, `panel_stride` apart. */
#ifdef USE_HALVES
INLINE void half_tile(const half_t *a, int64_t a_stride, const int rows, const int blocks,
                      int64_t depth, const half_t *panel, int64_t panel_stride, float *out,
                      int64_t out_stride) {
    /* So many blocks at once as there are registers for. */
    const int at_once = rows > 3 ? 1 : MIN(blocks, rows > 1 ? 2 : 4);
    for (int first = 0; first < blocks; first += at_once) {
        f32x8 total[6][8] = {};
        for (int64_t k = 0; k < depth; k++)
#pragma GCC unroll 8
            for (int half = 0; half < 2 * at_once; half++) {
                const half_t *w = panel + (first + half / 2) * panel_stride + k * LANES;
                f32x8 weights = load8(w + half % 2 * 8);
#pragma GCC unroll 6
                for (int r = 0; r < rows; r++) {
                    f32x8 x = (f32x8)_mm256_broadcast_ss(a + r * a_stride + k);
                    total[r][half] = fused_madd8(x, weights, total[r][half]);
                }
            }
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
            for (int half = 0; half < 2 * at_once; half++)
                store8(out + r * out_stride + first * LANES + half * 8, total[r][half]);
    }
}
#else
INLINE void half_tile(const half_t *a, int64_t a_stride, const int rows, const int blocks,
                      int64_t depth, const half_t *panel, int64_t panel_stride, float *out,
                      int64_t out_stride) {
    f32x16 total[6][4] = {};
    for (int64_t k = 0; k < depth; k += PAIR)
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
            for (int b = 0; b < blocks; b++) {
                const half_t *w = panel + b * panel_stride + k * LANES;
#ifdef USE_BF16
                int32_t pair;
                memcpy(&pair, a + r * a_stride + k, 4);
                __m512bh x = (__m512bh)_mm512_set1_epi32(pair);
                total[r][b] = (f32x16)_mm512_dpbf16_ps((__m512)total[r][b], x,
                                                       (__m512bh)_mm512_loadu_si512(w));
#else
                total[r][b] = fused_madd(splat(a[r * a_stride + k]), load(w), total[r][b]);
#endif
            }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int b = 0; b < blocks; b++) store(out + r * out_stride + b * LANES, total[r][b]);
}
#endif

/* Rows and blocks must be constants for the accumulators to stay in registers. */
#define HALF_TILE(ROWS, BLOCKS)                                                                    \
    static void half_tile_##ROWS##_##BLOCKS(const half_t *a, int64_t a_stride, int64_t depth,      \
                                            const half_t *panel, int64_t panel_stride, float *out, \
                                            int64_t out_stride) {                                  \
        half_tile(a, a_stride, ROWS, BLOCKS, depth, panel, panel_stride, out, out_stride);         \
    }
/* clang-format off */
HALF_TILE(1, 1) HALF_TILE(2, 1) HALF_TILE(3, 1) HALF_TILE(6, 1)
HALF_TILE(1, 2) HALF_TILE(2, 2) HALF_TILE(3, 2) HALF_TILE(6, 2)
HALF_TILE(1, 4) HALF_TILE(2, 4) HALF_TILE(3, 4)
/* clang-format on */
#undef HALF_TILE

    /* What is read next, to be prefetched meanwhile. */
    typedef struct {
    const half_t *start;
    int64_t count;
} HalfPrefetch;

/* out[rows][width] = a[rows][depth] times panels of 16 columns, `panel_stride` apart. Few rows take
 * four panels at once: additions to one sum depend on each other, those to several overlap. */
static void half_product(const half_t *a, int64_t a_stride, int64_t rows, int64_t depth,
                         const half_t *panels, int64_t panel_stride, int64_t width, float *out,
                         int64_t out_stride, HalfPrefetch next) {
    int64_t line = 64 / sizeof(half_t);
    int64_t tiles = ROUND_UP(width, 2 * LANES) / (2 * LANES) * ((rows + 5) / 6);
    int64_t per_tile = ROUND_UP((next.count + tiles - 1) / tiles, line);
    const half_t *ahead = next.start, *end = ahead + next.count;
    for (int64_t column = 0, blocks; column < width; column += blocks * LANES) {
        const half_t *panel = panels + column / LANES * panel_stride;
        blocks = rows <= 3 && width - column > 3 * LANES ? 4 : width - column > LANES ? 2 : 1;
        for (int64_t row = 0, left; (left = rows - row) > 0;) {
            const half_t *x = a + row * a_stride;
            float *target = out + row * out_stride + column;
            for (const half_t *until = MIN(ahead + per_tile, end); ahead < until; ahead += line)
                __builtin_prefetch(ahead, 0, 2);
#define RUN(ROWS, BLOCKS)                                                                          \
    half_tile_##ROWS##_##BLOCKS(x, a_stride, depth, panel, panel_stride, target, out_stride)
#define RUN_FEW(ROWS)                                                                              \
    (blocks == 4 ? RUN(ROWS, 4) : blocks == 2 ? RUN(ROWS, 2) : RUN(ROWS, 1), row += ROWS)
            if (left >= 6)
                blocks == 2 ? RUN(6, 2) : RUN(6, 1), row += 6;
            else if (left >= 3)
                RUN_FEW(3);
            else if (left >= 2)
                RUN_FEW(2);
            else
                RUN_FEW(1);
#undef RUN_FEW
#undef RUN
        }
    }
}

INLINE void store_numerators(void *out, int64_t at, f32x16 p, const int as_float) {
    if (as_float)
        store((float *)out + at, p);
    else
        store_half((half_t *)out + at, p);
}

/* Softmax numerators of the first `seen` scores, zero from there to `width`: as half_t, or as
 * floats, which may take the place of the scores. Returns their sum; *peak receives the scaled
 * score whose numerator is 1. */
INLINE float exponentiate_as(const float *scores, int64_t seen, int64_t width, float scale,
                             void *out, const int as_float, float *peak) {
    const i32x16 lanes = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const f32x16 minus_infinity = splat(-__builtin_inff());
    int64_t full = seen / LANES * LANES, i;
    i32x16 in_tail = lanes < (int32_t)(seen - full);
    f32x16 peaks = minus_infinity, sums = {}, tail = minus_infinity;
    if (full < seen) tail = blend(in_tail, load(scores + full), minus_infinity);
    for (i = 0; i < full; i += LANES) peaks = vector_max(load(scores + i), peaks);
    float top = reduce_max(vector_max(tail, peaks)), slope = scale * 1.44269504f;
    *peak = top * scale;
    f32x16 slopes = splat(slope), shift = splat(-top * slope);
    for (i = 0; i < full; i += LANES) {
        f32x16 p = vector_exp2(fused_madd(load(scores + i), slopes, shift));
        sums += p;
        store_numerators(out, i, p, as_float);
    }
    if (full < seen) {
        f32x16 p = blend(in_tail, vector_exp2(fused_madd(tail, slopes, shift)), (f32x16){});
        sums += p;
        store_numerators(out, i, p, as_float);
        i += LANES;
    }
    for (; i < width; i += LANES) store_numerators(out, i, (f32x16){}, as_float);
    return reduce_add(sums);
}

static __attribute__((noinline)) float exponentiate(const float *scores, int64_t seen,
                                                    int64_t width, float scale, half_t *out,
                                                    float *peak) {
    return exponentiate_as(scores, seen, width, scale, out, 0, peak);
}

/* The state of a query over the spans so far is [2 + dim]: the peak score, the sum of the softmax
 * numerators, and the sum of the values weighted with them. Add one span, or begin with it. */
static __attribute__((noinline)) void merge_span(float *state, float peak, float weight,
                                                 const float *values, int64_t dim, int first) {
    if (first) {
        state[0] = peak, state[1] = weight;
        for (int64_t d = 0; d < dim; d += LANES) store(state + 2 + d, load(values + d));
        return;
    }
    float top = MAX(state[0], peak);
    f32x16 factors = vector_exp((f32x16){state[0] - top, peak - top});
    state[0] = top;
    state[1] = state[1] * factors[0] + weight * factors[1];
    for (int64_t d = 0; d < dim; d += LANES)
        store(state + 2 + d, load(state + 2 + d) * factors[0] + load(values + d) * factors[1]);
}

/* Add a score that has no value (a sink). */
static void merge_sink(float *state, float sink, int64_t dim) {
    float top = MAX(state[0], sink);
    f32x16 factors = vector_exp((f32x16){state[0] - top, sink - top});
    state[0] = top;
    state[1] = state[1] * factors[0] + factors[1];
    for (int64_t d = 0; d < dim; d += LANES) store(state + 2 + d, load(state + 2 + d) * factors[0]);
}

/* What becomes of scores before the softmax, and the first position that each query sees. */
typedef struct {
    float scale, softcap, slopes[QUERY_TILE]; /* slopes: zero without ALiBi */
    int has_slopes, is_windowed, has_distances;
    int64_t reach;
    const float *distances[QUERY_TILE];         /* of the query's head, see Attention */
    int64_t from[QUERY_TILE], seen[QUERY_TILE]; /* positions that the query sees: [from, seen) */
    int64_t positions[QUERY_TILE];              /* its own */
} ScoreRules;

/* x, softly limited to (-cap, cap). */
INLINE f32x16 soft_cap(f32x16 x, float cap) {
    return cap - 2.0f * cap / (vector_exp(x * (2.0f / cap)) + 1.0f);
}

/* A score so low that its weight is zero; infinity would give NaN. */
#define HIDDEN_SCORE -1e30f

/* Apply the rules to the scores [width] of query q with a span from position `first` on. */
static __attribute__((noinline)) void adjust_scores(const ScoreRules *rules, int64_t q,
                                                    int64_t first, int64_t width, float *scores) {
    const f32x16 lanes = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    float slope = rules->slopes[q], cap = rules->softcap;
    int64_t distance = first - rules->positions[q], hidden = rules->from[q] - first;
    const float *biases = NULL;
    if (rules->has_distances) {
        /* Further away, all distances of a span have one bias. */
        int64_t most = rules->reach, least = -most - SPAN;
        biases = rules->distances[q] + MAX(least, MIN(distance, most)) - least;
    }
    for (int64_t i = 0; i < width; i += LANES) {
        f32x16 y = load(scores + i) * rules->scale;
        if (cap) y = soft_cap(y, cap);
        if (rules->has_slopes) y += (lanes + (float)(distance + i)) * slope;
        if (biases) y += load(biases + i);
        store(scores + i, y);
    }
    for (int64_t i = 0; i < MIN(hidden, width); i++) scores[i] = HIDDEN_SCORE;
}
