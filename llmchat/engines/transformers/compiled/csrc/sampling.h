/* The next token from one row of logits. The order is that of transformers: temperature, top-k,
 * top-p, min-p; penalties were applied before, in torch (pytorch/penalties.py). Weights of tokens
 * are relative to the most likely token, whose weight is 1.
 *
 * Cost: a pass over the vocabulary, and a heap of the few tokens that are near the most likely one.
 * All tokens are sorted only where those do not suffice. */
#pragma once
#include "vectors.h"

#define LOG2_E 1.44269504f
#define NEAR 9.0f /* a token is near if its weight is at least e^-NEAR */
#define CHUNK 256 /* tokens whose weights are summed before they are looked at one by one */

/* The fields of Distribution (settings/sampling.py) in their order, then `point` in [0, 1): the
 * place in the cumulated probabilities where the token is drawn. */
typedef struct {
    float temperature;
    float top_p;
    int64_t top_k; /* 0 or less: every token */
    float min_p;
    double point;
} SamplingParams;

typedef struct {
    float weight;
    int32_t id;
} Candidate;

/* A row of logits; log2 of a weight is logit * slope + shift. */
typedef struct {
    const float *logits;
    int64_t count;
    float slope, shift;
} Weights;

/* 16 logits; minus infinity beyond the last one. */
INLINE f32x16 logits_at(const float *logits, int64_t first, int64_t count) {
    if (first + LANES <= count) return load(logits + first);
    f32x16 tail = splat(-__builtin_inff());
    memcpy(&tail, logits + first, (count - first) * sizeof *logits);
    return tail;
}

INLINE f32x16 log2_weights(const Weights *w, int64_t first) {
    return fused_madd(logits_at(w->logits, first, w->count), splat(w->slope), splat(w->shift));
}

/* The first of the largest logits. */
static int64_t argmax(const float *logits, int64_t count) {
    f32x16 best = splat(-__builtin_inff());
    for (int64_t i = 0; i < count; i += LANES) best = vector_max(logits_at(logits, i, count), best);
    float most = reduce_max(best);
    for (int64_t i = 0; i < count; i += LANES)
        if (reduce_max(logits_at(logits, i, count)) == most)
            for (int64_t k = i; k < count; k++)
                if (logits[k] == most) return k;
    return 0;
}

/* ---- a heap of candidates, the most likely on top */

INLINE int is_before(Candidate a, Candidate b) {
    return a.weight != b.weight ? a.weight > b.weight : a.id < b.id;
}

static void sift_down(Candidate *heap, int64_t count, int64_t index) {
    Candidate moved = heap[index];
    for (int64_t child; (child = 2 * index + 1) < count; index = child) {
        if (child + 1 < count && is_before(heap[child + 1], heap[child])) child++;
        if (!is_before(heap[child], moved)) break;
        heap[index] = heap[child];
    }
    heap[index] = moved;
}

/* Move the top behind the last of `count` candidates. Returns how many the heap still has. */
static int64_t heap_pop(Candidate *heap, int64_t count) {
    Candidate top = heap[0];
    heap[0] = heap[count - 1], heap[count - 1] = top;
    sift_down(heap, count - 1, 0);
    return count - 1;
}

/* ---- weights */

/* The sum of the weights of a chunk; *peak receives the largest log2 of them, by lane. */
INLINE float chunk_weight(const Weights *w, int64_t first, f32x16 *peak) {
    f32x16 sums = {}, powers = splat(-__builtin_inff());
    for (int64_t i = first; i < MIN(first + CHUNK, w->count); i += LANES) {
        f32x16 power = log2_weights(w, i);
        powers = vector_max(power, powers);
        sums += vector_exp2(power);
    }
    *peak = powers;
    return reduce_add(sums);
}

/* Draw from all tokens, in the order of their ids, by inverse transform sampling. */
static int64_t draw_from_all(const Weights *w, double point) {
    double total = 0, reached = 0;
    int64_t last = 0;
    f32x16 peak;
    for (int64_t i = 0; i < w->count; i += CHUNK) total += chunk_weight(w, i, &peak);
    for (int64_t i = 0; i < w->count; i += CHUNK) {
        float weight = chunk_weight(w, i, &peak);
        if (weight <= 0) continue;
        if (reached + weight <= point * total) {
            reached += weight;
            continue;
        }
        for (int64_t k = i; k < MIN(i + CHUNK, w->count); k += LANES) {
            f32x16 weights = vector_exp2(log2_weights(w, k));
            for (int64_t lane = 0; lane < LANES; lane++) {
                if (weights[lane] > 0) last = k + lane;
                if ((reached += weights[lane]) > point * total) return last;
            }
        }
        return last; /* added one by one the weights are a little less than the chunk's sum */
    }
    return last;
}

/* Collect the tokens whose weight is at least e^-reach. Returns their number; *total receives the
 * sum of the weights of all tokens. */
static int64_t collect_near(const Weights *w, float reach, Candidate *found, double *total) {
    int64_t size = 0;
    const float limit = -reach * LOG2_E;
    f32x16 peak;
    *total = 0;
    for (int64_t i = 0; i < w->count; i += CHUNK) {
        *total += chunk_weight(w, i, &peak);
        if (reduce_max(peak) < limit) continue;
        for (int64_t k = i; k < MIN(i + CHUNK, w->count); k += LANES) {
            f32x16 power = log2_weights(w, k), weights = vector_exp2(power);
            if (reduce_max(power) < limit) continue;
            for (int64_t lane = 0; lane < LANES; lane++)
                if (power[lane] >= limit && weights[lane] > 0)
                    found[size++] = (Candidate){weights[lane], (int32_t)(k + lane)};
        }
    }
    return size;
}

/* Sort the candidates that top-k, top-p and min-p keep to the end of the `size` found, the most
 * likely last. Returns their number, or 0 if tokens beyond `reach` might belong to them. */
static int64_t filter_candidates(Candidate *found, int64_t size, int64_t count,
                                 const SamplingParams *params, double total, float reach) {
    int64_t left = size, kept = 0;
    int64_t most = params->top_k > 0 && params->top_k < count ? params->top_k : count;
    double reached = 0;
    for (int64_t index = size / 2; index-- > 0;) sift_down(found, size, index);
    if (most < count) {
        for (total = 0; size - left < most && left; total += found[left].weight)
            left = heap_pop(found, left);
        if (size - left < most && reach < __builtin_inff()) return 0;
    }
    /* Top-p excludes a token if those before it already have the probability mass; the first one
     * always stays. */
    while (kept < MIN(most, size) &&
           (!kept || params->top_p >= 1 || reached < params->top_p * total)) {
        if (size - left == kept) left = heap_pop(found, left);
        float weight = found[size - 1 - kept].weight;
        if (kept && weight < params->min_p) return kept;
        reached += weight, kept++;
    }
    int complete = kept == most || (params->top_p < 1 && reached >= params->top_p * total) ||
                   params->min_p > __builtin_expf(-reach);
    return complete || reach == __builtin_inff() ? kept : 0;
}

/* Choose a token. found: room for `count`; afterwards found[*from] up to found[*to] are the tokens
 * that could have been drawn, the most likely last; none if there was no choice or every token
 * could. Returns -1 where the largest logit is not finite: such a model answers nothing. */
static int64_t choose_token(const float *logits, int64_t count, const SamplingParams *params,
                            Candidate *found, int64_t *from, int64_t *to) {
    int64_t best = argmax(logits, count);
    *from = *to = 0;
    float slope = LOG2_E / params->temperature;
    const Weights weights = {logits, count, slope, -logits[best] * slope};
    if (!(__builtin_fabsf(logits[best]) < __builtin_inff())) return -1;
    if (params->temperature == 0 || !(__builtin_fabsf(weights.shift) < __builtin_inff()))
        return best;
    int has_top_k = params->top_k > 0 && params->top_k < count;
    if (!has_top_k && params->top_p >= 1 && params->min_p <= 0)
        return draw_from_all(&weights, params->point);
    double total, reached = 0;
    int64_t kept = 0;
    for (float reach = NEAR; !kept; reach = __builtin_inff()) {
        *to = collect_near(&weights, reach, found, &total);
        kept = filter_candidates(found, *to, count, params, total, reach);
    }
    *from = *to - kept, total = 0;
    for (int64_t i = *from; i < *to; i++) total += found[i].weight;
    for (int64_t i = *to; i-- > *from;)
        if ((reached += found[i].weight) > params->point * total) return found[i].id;
    return found[*from].id;
}

/* ---- masks */

/* 16 logits, minus infinity where the bit of a token is 0. */
INLINE f32x16 masked(f32x16 logits, uint32_t bits) {
    const i32x16 place = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    i32x16 allowed = ((i32x16){} + (int32_t)bits) >> place & 1;
    f32x16 none = splat(-__builtin_inff());
    return (f32x16)(((i32x16)logits & -allowed) | ((i32x16)none & (allowed - 1)));
}

/* Copy a row of logits with minus infinity for the tokens whose bit is 0. allowed: bits of at least
 * `count` tokens, lowest first in words of 32. */
static void mask_logits(const float *logits, const uint32_t *allowed, int64_t count, float *out) {
    for (int64_t i = 0; i < count; i += LANES) {
        f32x16 kept = masked(logits_at(logits, i, count), allowed[i >> 5] >> (i & 31) & 0xffff);
        memcpy(out + i, &kept, MIN(LANES, count - i) * sizeof *out);
    }
}
