/* RMS norms (Zhang & Sennrich 2019) and layer norms (Ba et al. 2016) of rows, or of groups of them.
 * The sum over a row has one order, whatever part of the row is then written. */
#pragma once
#include <math.h>

#include "model.h"

/* squares: the sum of squares, of the distances from the mean for a layer norm. */
typedef struct {
    float mean, factor, squares;
} Moments;

static float sum_of(const float *x, int64_t count) {
    f32x16 totals = {};
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) totals += load(x + i);
    float total = reduce_add(totals);
    for (; i < count; i++) total += x[i];
    return total;
}

static float sum_of_squares(const float *x, int64_t count, float mean) {
    f32x16 squares = {};
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        f32x16 v = load(x + i) - mean;
        squares = fused_madd(v, v, squares);
    }
    float total = reduce_add(squares);
    for (; i < count; i++) total += (x[i] - mean) * (x[i] - mean);
    return total;
}

static __attribute__((noinline)) Moments moments_of(const Norm *norm, const float *x,
                                                    int64_t count) {
    Moments m = {0};
    if (norm->subtracts_mean) m.mean = sum_of(x, count) / count;
    m.squares = sum_of_squares(x, count, m.mean);
    m.factor = 1.0f / sqrtf(m.squares / count + norm->eps);
    return m;
}

/* Numbers [begin, end) of x: [count], normed; weight and bias are those of x. */
static __attribute__((noinline)) void apply_moments(const Moments *m, const float *x,
                                                    const float *weight, const float *bias,
                                                    int64_t begin, int64_t end, float *out) {
    int64_t i = begin;
    for (; i + LANES <= end; i += LANES) {
        f32x16 y = (load(x + i) - m->mean) * m->factor * load(weight + i);
        store(out + i, bias ? y + load(bias + i) : y);
    }
    for (; i < end; i++)
        out[i] = (x[i] - m->mean) * m->factor * weight[i] + (bias ? bias[i] : 0.0f);
}

/* Columns [begin, end) of the norm of a whole row. Returns its sum of squares. */
static float norm_row(const Norm *norm, const float *x, int64_t begin, int64_t end, float *out) {
    Moments m = moments_of(norm, x, norm->count);
    apply_moments(&m, x, norm->weight, norm->bias, begin, end, out);
    return m.squares;
}

/* Norm group number `index` where it is. */
static void norm_group(const Norm *norm, float *x, int64_t index) {
    int64_t first = norm->is_shared ? 0 : index * norm->group;
    Moments m = moments_of(norm, x, norm->group);
    apply_moments(&m, x, norm->weight + first, norm->bias ? norm->bias + first : NULL, 0,
                  norm->group, x);
}

/* Norm heads of a row where they are: each by itself, or, if the norm has one group, all together;
 * then they are contiguous. */
static void norm_heads(const Norm *norm, float *row, const Heads *heads) {
    if (!norm->count) return;
    if (norm->group != heads->width) {
        norm_group(norm, row + heads->start, 0);
        return;
    }
    for (int64_t head = 0; head < heads->count; head++)
        norm_group(norm, row + head_begin(heads, head), head);
}
