/* The next token of one row of logits. The order is that of transformers: temperature, top-k, top-p, min-p. */
#pragma once
#include "vectors.h"

#define REACH 9.0f /* what is less likely than the likeliest token by this power of e is looked at only where it must be */
#define TOKENS 256 /* that are summed up at once */

/* The fields of Distribution (settings/sampling.py) in their order, then `point` in [0, 1): the
   place in the cumulated probabilities where the token is drawn. */
typedef struct {
    float temperature;
    float top_p;
    int64_t top_k; /* 0: every token */
    float min_p;
    float repetition_penalty; /* applied before, in torch */
    double point;
} Choosing;

typedef struct {
    float chance; /* against the likeliest token */
    int32_t id;
} Candidate;

INLINE I16 lanes_from(int64_t first) { return (I16){0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15} + (int32_t)first; }

/* Sixteen logits; beyond the last one, what no token can be chosen by. */
INLINE F16 logits_at(const float *logits, int64_t first, int64_t count) {
    if (first + LANES <= count) return load(logits + first);
    F16 some = all(-__builtin_inff());
    memcpy(&some, logits + first, (count - first) * sizeof *logits);
    return some;
}

/* The first of the largest. */
static int64_t likeliest(const float *logits, int64_t count) {
    F16 best = all(-__builtin_inff());
    for (int64_t i = 0; i < count; i += LANES) best = larger(logits_at(logits, i, count), best);
    float most = largest(best);
    for (int64_t i = 0; i < count; i += LANES)
        if (largest(logits_at(logits, i, count)) == most)
            for (int64_t k = i; k < count; k++)
                if (logits[k] == most) return k;
    return 0;
}

/* A heap of candidates, the likeliest on top. */
INLINE int before(Candidate a, Candidate b) { return a.chance != b.chance ? a.chance > b.chance : a.id < b.id; }

static void sink(Candidate *heap, int64_t count, int64_t at) {
    Candidate one = heap[at];
    for (int64_t child; (child = 2 * at + 1) < count; at = child) {
        if (child + 1 < count && before(heap[child + 1], heap[child])) child++;
        if (!before(heap[child], one)) break;
        heap[at] = heap[child];
    }
    heap[at] = one;
}

/* Of `count`, what is left once the likeliest has changed places with the last one. */
static int64_t pop(Candidate *heap, int64_t count) {
    Candidate top = heap[0];
    heap[0] = heap[count - 1], heap[count - 1] = top;
    sink(heap, count - 1, 0);
    return count - 1;
}

/* The sum of the chances of TOKENS tokens, against the likeliest; *peak has the largest power of 2 among them. */
INLINE float chances_of(const float *logits, int64_t first, int64_t count, float steep, float less, F16 *peak) {
    F16 sums = {}, powers = all(-__builtin_inff());
    for (int64_t i = first; i < MIN(first + TOKENS, count); i += LANES) {
        F16 power = madd(logits_at(logits, i, count), all(steep), all(less));
        powers = larger(power, powers);
        sums += vanishing(power);
    }
    *peak = powers;
    return sum(sums);
}

/* By inverse transform over all tokens in the order of their numbers. */
static int64_t anyone(const float *logits, int64_t count, float steep, float less, double point) {
    double total = 0, reached = 0;
    int64_t last = 0;
    F16 peak;
    for (int64_t i = 0; i < count; i += TOKENS) total += chances_of(logits, i, count, steep, less, &peak);
    for (int64_t i = 0; i < count; i += TOKENS) {
        float here = chances_of(logits, i, count, steep, less, &peak);
        if (here <= 0) continue;
        if (reached + here <= point * total) {
            reached += here;
            continue;
        }
        for (int64_t k = i; k < MIN(i + TOKENS, count); k += LANES) {
            F16 chances = vanishing(madd(logits_at(logits, k, count), all(steep), all(less)));
            for (int64_t lane = 0; lane < LANES; lane++) {
                if (chances[lane] > 0) last = k + lane;
                if ((reached += chances[lane]) > point * total) return last;
            }
        }
        return last; /* added one by one they are a little less */
    }
    return last;
}

/* Tokens that are less likely than the likeliest by e^reach at most. Returns their number; *total is the sum of the chances of all tokens. */
static int64_t within(const float *logits, int64_t count, float steep, float less, float reach, Candidate *found, double *total) {
    int64_t size = 0;
    const float limit = -reach * 1.44269504f;
    F16 peak;
    *total = 0;
    for (int64_t i = 0; i < count; i += TOKENS) {
        *total += chances_of(logits, i, count, steep, less, &peak);
        if (largest(peak) < limit) continue;
        for (int64_t k = i; k < MIN(i + TOKENS, count); k += LANES) {
            F16 power = madd(logits_at(logits, k, count), all(steep), all(less)), chances = vanishing(power);
            if (largest(power) < limit) continue;
            for (int64_t lane = 0; lane < LANES; lane++)
                if (power[lane] >= limit && chances[lane] > 0) found[size++] = (Candidate){chances[lane], (int32_t)(k + lane)};
        }
    }
    return size;
}

/* The tokens that may come, the likeliest last, at the end of the `size` that were found. Returns their number, or 0 where others might belong to them. */
static int64_t inside(Candidate *found, int64_t size, int64_t count, const Choosing *how, double total, float reach) {
    int64_t left = size, kept = 0, most = how->top_k && how->top_k < count ? how->top_k : count;
    double reached = 0;
    for (int64_t at = size / 2; at-- > 0;) sink(found, size, at);
    if (most < count) {
        for (total = 0; size - left < most && left; total += found[left].chance) left = pop(found, left);
        if (size - left < most && reach < __builtin_inff()) return 0;
    }
    /* A token goes when those before it already make up the share; the first one always stays. */
    while (kept < MIN(most, size) && (!kept || how->top_p >= 1 || reached < how->top_p * total)) {
        if (size - left == kept) left = pop(found, left);
        float chance = found[size - 1 - kept].chance;
        if (kept && chance < how->min_p) return kept;
        reached += chance, kept++;
    }
    int whole = kept == most || (how->top_p < 1 && reached >= how->top_p * total) || how->min_p > __builtin_expf(-reach);
    return whole || reach == __builtin_inff() ? kept : 0;
}

/* -1 where the likeliest logit is no finite number: such a model says nothing. found: room for `count`; the tokens that might have come instead are found[*from] up to found[*to]. */
static int64_t choose_token(const float *logits, int64_t count, const Choosing *how, Candidate *found, int64_t *from, int64_t *to) {
    int64_t first = likeliest(logits, count);
    *from = *to = 0;
    float steep = 1.44269504f / how->temperature, less = -logits[first] * steep;
    if (!(__builtin_fabsf(logits[first]) < __builtin_inff())) return -1;
    if (how->temperature == 0 || !(__builtin_fabsf(less) < __builtin_inff())) return first;
    if ((!how->top_k || how->top_k >= count) && how->top_p >= 1 && how->min_p <= 0) return anyone(logits, count, steep, less, how->point);
    double total, reached = 0;
    int64_t kept = 0;
    for (float reach = REACH; !kept; reach = __builtin_inff()) {
        *to = within(logits, count, steep, less, reach, found, &total);
        kept = inside(found, *to, count, how, total, reach);
    }
    *from = *to - kept, total = 0;
    for (int64_t i = *from; i < *to; i++) total += found[i].chance;
    for (int64_t i = *to; i-- > *from;)
        if ((reached += found[i].chance) > how->point * total) return found[i].id;
    return found[*from].id;
}
