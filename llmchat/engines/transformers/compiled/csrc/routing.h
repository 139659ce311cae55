/* Which experts a row goes through, and with which weights. The sums have one order each, which
 * follows from the row alone. */
#pragma once
#include "activation_functions.h"
#include "layout.h"

#define ROUTER_ROWS 8     /* rows for which a row of the router is read once */
#define ROUTER_EXPERTS 16 /* experts in a unit of work */

static float dot_floats(const float *a, const float *b, int64_t count) {
    f32x16 totals[4] = {};
    int64_t i = 0;
    for (; i + 4 * LANES <= count; i += 4 * LANES)
        for (int64_t k = 0; k < 4; k++)
            totals[k] = fused_madd(load(a + i + k * LANES), load(b + i + k * LANES), totals[k]);
    for (; i + LANES <= count; i += LANES)
        totals[0] = fused_madd(load(a + i), load(b + i), totals[0]);
    float sum = reduce_add((totals[0] + totals[1]) + (totals[2] + totals[3]));
    for (; i < count; i++) sum += a[i] * b[i];
    return sum;
}

/* The logits of all rows. */
static void find_router_logits(Worker *worker, const Experts *e) {
    const Pass *pass = worker->pass;
    const float *rows = worker->experts.router_rows;
    int64_t hidden = pass->model->hidden;
    int64_t parts = (e->experts + ROUTER_EXPERTS - 1) / ROUTER_EXPERTS;
    int64_t blocks = (pass->rows + ROUTER_ROWS - 1) / ROUTER_ROWS;
    loop_begin(&worker->cursor, blocks * parts, 1);
    for (int64_t unit; (unit = loop_next(&worker->cursor)) >= 0;) {
        int64_t first = unit / parts * ROUTER_ROWS, begin = unit % parts * ROUTER_EXPERTS;
        int64_t last = MIN(first + ROUTER_ROWS, pass->rows);
        for (int64_t x = begin; x < MIN(begin + ROUTER_EXPERTS, e->experts); x++)
            for (int64_t row = first; row < last; row++)
                pass->experts.logits[row * e->experts + x] =
                    dot_floats(e->router + x * hidden, rows + row * hidden, hidden) +
                    (e->router_bias ? e->router_bias[x] : 0.0f);
    }
    barrier(&worker->cursor);
}

/* x: [count] → softmax where it is. */
static void softmax_floats(float *x, int64_t count) {
    float peak = x[0], sum = 0;
    for (int64_t i = 1; i < count; i++) peak = MAX(peak, x[i]);
    for (int64_t i = 0; i < count; i++) sum += x[i] = expf(x[i] - peak);
    for (int64_t i = 0; i < count; i++) x[i] /= sum;
}

/* The largest of x that is not yet taken; the first one of equal ones, and of numbers that cannot
 * be compared. */
static int64_t take_largest(const float *x, int64_t count, int8_t *taken) {
    int64_t best = -1;
    for (int64_t i = 0; i < count; i++)
        if (!taken[i] && (best < 0 || x[i] > x[best])) best = i;
    taken[best] = 1;
    return best;
}

/* Make experts outside of the best groups impossible to choose. ranked: [experts]. */
static void keep_best_groups(const Experts *e, float *ranked, float *ratings, int8_t *taken) {
    int64_t size = e->experts / e->groups;
    for (int64_t g = 0; g < e->groups; g++) {
        memset(taken, 0, size);
        ratings[g] = 0;
        for (int64_t i = 0; i < e->group_members; i++)
            ratings[g] += ranked[g * size + take_largest(ranked + g * size, size, taken)];
    }
    memset(taken, 0, e->groups);
    for (int64_t i = 0; i < e->top_groups; i++) take_largest(ratings, e->groups, taken);
    for (int64_t i = 0; i < e->experts; i++)
        if (!taken[i / size]) ranked[i] = -__builtin_inff();
}

static void scale_weights(const Experts *e, const int32_t *chosen, float *weights) {
    float sum = e->sum_offset;
    for (int64_t i = 0; i < e->top; i++) sum += weights[i];
    for (int64_t i = 0; i < e->top; i++) {
        if (e->normalised) weights[i] /= sum;
        weights[i] *= e->factor * (e->expert_scale ? e->expert_scale[chosen[i]] : 1.0f);
    }
}

/* The experts that a block chose for all rows. */
static int32_t *chosen_by(const Pass *pass, const Block *block) {
    const Experts *e = block->details;
    return pass->experts.chosen + (block - pass->model->block) * pass->rows * e->top;
}

/* Experts and weights of a row, the first choice first. */
static void choose_experts(Worker *worker, const Block *block, int64_t row) {
    const ExpertMemory *memory = &worker->pass->experts;
    const Experts *e = block->details;
    const float *logits = memory->logits + row * e->experts;
    float *scores = worker->experts.scores, *ranked = scores + e->experts;
    int32_t *chosen = chosen_by(worker->pass, block) + row * e->top;
    float *weights = memory->weights + row * e->top;
    for (int64_t i = 0; i < e->experts; i++)
        scores[i] = e->score == SIGMOID ? 1.0f / (1.0f + expf(-logits[i])) : logits[i];
    if (e->score == SOFTMAX) softmax_floats(scores, e->experts);
    /* Scores grow with logits, but can be equal where logits are not. */
    int by_logits = !e->correction && e->groups == 1;
    for (int64_t i = 0; i < e->experts; i++)
        ranked[i] = by_logits ? logits[i] : scores[i] + (e->correction ? e->correction[i] : 0.0f);
    if (e->groups > 1) keep_best_groups(e, ranked, ranked + e->experts, worker->experts.taken);
    memset(worker->experts.taken, 0, e->experts);
    for (int64_t i = 0; i < e->top; i++) {
        chosen[i] = take_largest(ranked, e->experts, worker->experts.taken);
        weights[i] = scores[chosen[i]];
    }
    if (e->score == SOFTMAX_OF_TOP) softmax_floats(weights, e->top);
    scale_weights(e, chosen, weights);
}

/* How much of the shared expert a row takes. x: what its gate reads. */
static float shared_factor(const Experts *e, const float *x, int64_t hidden) {
    return e->shared_gate ? 1.0f / (1.0f + expf(-dot_floats(e->shared_gate, x, hidden))) : 1.0f;
}

static void route_rows(Worker *worker, const Block *block) {
    const Pass *pass = worker->pass;
    const Experts *e = block->details;
    int64_t hidden = pass->model->hidden;
    find_router_logits(worker, e);
    loop_begin(&worker->cursor, pass->rows, 1);
    for (int64_t row; (row = loop_next(&worker->cursor)) >= 0;) {
        choose_experts(worker, block, row);
        pass->experts.shared[row] = shared_factor(e, worker->experts.rows + row * hidden, hidden);
    }
    barrier(&worker->cursor);
}
