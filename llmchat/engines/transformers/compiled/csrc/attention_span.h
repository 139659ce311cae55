/* Attention of a few queries over one span of keys and values of one head, whatever the type of the
 * KV cache. */
#pragma once
#include "attention_int8.h"

/* The keys and values of a span: half_t in the order of kv_layout.h, or as kv_int8.h has them. */
typedef struct {
    const void *keys, *values;
    int64_t dim, value_dim; /* of keys, of values */
    int is_int8;
} HeldSpan;

/* Convert the first `count` keys and values of a span to fp32 where products take these. */
static void unpack_span(const AttentionScratch *scratch, HeldSpan *held, int64_t count) {
#ifndef USE_BF16
    int64_t dim = held->dim, value_dim = held->value_dim;
    if (held->is_int8) {
#ifndef USE_VNNI
        unpack_keys(held->keys, count, dim, scratch->keys);
        unpack_values(held->values, count, value_dim, scratch->values);
        held->keys = scratch->keys, held->values = scratch->values;
#endif
        return;
    }
    unzip_pairs(held->keys, ROUND_UP(count, LANES) / LANES * dim / 2, scratch->keys);
    for (int64_t d = 0; d < value_dim; d += LANES)
        unzip_pairs((const bf16 *)held->values + d * SPAN, (count + 1) / 2,
                    scratch->values + d * SPAN);
    held->keys = scratch->keys, held->values = scratch->values;
#else
    (void)scratch, (void)held, (void)count;
#endif
}

/* scores[queries][SPAN] = queries from number `first` on times `width` keys. count: the values that
 * are read next. */
static void multiply_keys(const AttentionScratch *scratch, const HeldSpan *held, int64_t first,
                          int64_t queries, int64_t width, int64_t count) {
    int64_t dim = held->dim;
#ifdef USE_VNNI
    if (held->is_int8) {
        int64_t bytes = count * cached_bytes(1, held->value_dim), at_once = queries == 1 ? 64 : 32;
        score_codes(&scratch->queries8, first, queries, dim, held->keys, width, scratch->scores,
                    prefetch_later(held->values, bytes, (width + at_once - 1) / at_once));
        return;
    }
#endif
    half_product(scratch->queries + first * dim, dim, queries, dim, held->keys, dim * LANES, width,
                 scratch->scores, SPAN, (HalfPrefetch){held->values, count * held->value_dim});
}

/* sums[queries][value_dim] = softmax numerators times `count` values. seen: as in sum_codes. next:
 * the keys of the span behind this one. */
static void multiply_values(const AttentionScratch *scratch, const HeldSpan *held,
                            const int64_t *seen, int64_t queries, int64_t count, int64_t next) {
    int64_t dim = held->dim, value_dim = held->value_dim;
#ifdef USE_VNNI
    if (held->is_int8) {
        const char *behind = (const char *)held->keys + SPAN * cached_bytes(1, dim);
        sum_codes(&scratch->weights8, scratch->scores, seen, queries, value_dim, held->values,
                  count, scratch->sums,
                  prefetch_later(behind, next * cached_bytes(1, dim), (value_dim + 31) / 32));
        return;
    }
#endif
    (void)seen;
    half_product(scratch->probabilities, SPAN, queries, ROUND_UP(count, PAIR), held->values,
                 SPAN * LANES, value_dim, scratch->sums, value_dim,
                 (HalfPrefetch){(const half_t *)held->keys + SPAN * dim, next * dim});
}

/* The softmax numerators of query q, where multiply_values takes them. */
static float find_numerators(const AttentionScratch *scratch, const HeldSpan *held, int64_t q,
                             int64_t seen, int64_t width, float scale, float *peak) {
    float *scores = scratch->scores + q * SPAN;
#ifdef USE_VNNI
    if (held->is_int8) return exponentiate_floats(scores, seen, width, scale, peak);
#endif
    (void)held;
    return exponentiate(scores, seen, width, scale, scratch->probabilities + q * SPAN, peak);
}

/* Add span number `span` to the states of `count` queries, at most QUERY_TILE, from number `first`
 * of the scratch memory on. in_order: each state continues over the spans before; otherwise each
 * span has states of its own. */
static void attend_span(const AttentionScratch *scratch, const HeldSpan *held, int64_t first,
                        int64_t queries, const ScoreRules *rules, int64_t span,
                        float *const *states, int in_order) {
    const int64_t *from = rules->from;
    int64_t last = 0, start = span * SPAN, value_dim = held->value_dim;
    for (int64_t q = 0; q < queries; q++)
        if (from[q] < start + SPAN) last = MAX(last, rules->seen[q] - start);
    if (last <= 0) return;
    int adjusts = rules->softcap || rules->has_slopes || rules->is_windowed || rules->has_distances;
    int64_t count = MIN(SPAN, last), width = ROUND_UP(count, LANES), seen[QUERY_TILE];
    float peaks[QUERY_TILE], weights[QUERY_TILE];
    multiply_keys(scratch, held, first, queries, width, count);
    for (int64_t q = 0; q < queries; q++) {
        seen[q] = MAX(0, MIN(SPAN, rules->seen[q] - start));
        if (adjusts) adjust_scores(rules, q, start, width, scratch->scores + q * SPAN);
        weights[q] = find_numerators(scratch, held, q, seen[q], width,
                                     adjusts ? 1.0f : rules->scale, &peaks[q]);
    }
    multiply_values(scratch, held, seen, queries, count, MIN(SPAN, last - count));
    for (int64_t q = 0; q < queries; q++)
        if (seen[q] > 0 && from[q] < start + SPAN)
            merge_span(states[q], peaks[q], weights[q], scratch->sums + q * value_dim, value_dim,
                       !in_order || span == from[q] / SPAN);
}
