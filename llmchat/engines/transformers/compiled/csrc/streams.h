/* The blocks of Gemma 3n: several streams a token (AltUp, Baykal et al. 2023), of which x is the
 * first, and residuals of low rank (LAuReL, Menghani et al. 2024). All sums follow from the row
 * alone. */
#pragma once
#include "prepare.h"
#include "routing.h"

#define LEAST_SQUARE 1e-5f /* the least mean square that a projection is scaled from */

/* Stream `index` of all rows, [R, hidden]. 0: of x, what was predicted for the layer at hand. */
static float *stream_rows(const Pass *pass, int64_t index) {
    return pass->streams + index * pass->rows * pass->model->hidden;
}

/* ---- the streams themselves */

static float mean_square(const float *x, int64_t count) {
    return sum_of_squares(x, count, 0.0f) / count;
}

/* The factor that gives y the root mean square of x. */
static float likeness(const float *x, const float *y, int64_t count) {
    return sqrtf(mean_square(x, count)) / sqrtf(MAX(mean_square(y, count), LEAST_SQUARE));
}

static Source two_terms_of(const Pass *pass, const float *rows) {
    return (Source){.kind = FROM_ROWS, .two_term = 1, .width = pass->model->hidden, .rows = rows};
}

static void run_open_streams(Worker *worker, const Block *block) {
    const Pass *pass = worker->pass;
    int64_t hidden = pass->model->hidden, others = block->linear_count;
    prepare_input(worker, two_terms_of(pass, pass->x));
    for (int64_t i = 0; i < others; i++)
        run_one_linear(worker, block, i, stream_rows(pass, i + 1), hidden);
    loop_begin(&worker->cursor, pass->rows * others, 1);
    for (int64_t unit; (unit = loop_next(&worker->cursor)) >= 0;) {
        int64_t row = unit / others;
        float *y = stream_rows(pass, unit % others + 1) + row * hidden;
        float factor = likeness(pass->x + row * hidden, y, hidden);
        for (int64_t i = 0; i < hidden; i++) y[i] *= factor;
    }
    barrier(&worker->cursor);
}

/* x becomes the mean of x and of the projections y: [others] of its other streams. */
static void join_row(const Pass *pass, int64_t others, int64_t row) {
    int64_t hidden = pass->model->hidden;
    float *x = pass->x + row * hidden, factors[MAX_STREAMS];
    for (int64_t i = 0; i < others; i++)
        factors[i] = likeness(x, stream_rows(pass, i) + row * hidden, hidden);
    for (int64_t d = 0; d < hidden; d++) {
        float sum = x[d];
        for (int64_t i = 0; i < others; i++)
            sum += factors[i] * stream_rows(pass, i)[row * hidden + d];
        x[d] = sum / (others + 1);
    }
}

/* The projection of a stream takes the place of the stream before it, which is no longer needed. */
static void run_join_streams(Worker *worker, const Block *block) {
    const Pass *pass = worker->pass;
    int64_t others = block->linear_count;
    for (int64_t i = 0; i < others; i++) {
        prepare_input(worker, two_terms_of(pass, stream_rows(pass, i + 1)));
        run_one_linear(worker, block, i, stream_rows(pass, i), pass->model->hidden);
    }
    loop_begin(&worker->cursor, pass->rows, 1);
    for (int64_t row; (row = loop_next(&worker->cursor)) >= 0;) join_row(pass, others, row);
    barrier(&worker->cursor);
}

/* ---- before and behind the blocks of a layer */

/* The coefficients of a row: [streams], or [streams, streams]. normed: [hidden], scratch. */
static void find_coefficients(const MixStreams *mix, const float *x, int64_t hidden, float *normed,
                              float *out) {
    int64_t streams = mix->streams, count = mix->corrects ? streams : streams * streams;
    float modalities[MAX_STREAMS];
    norm_row(&mix->norm, x, 0, hidden, normed);
    for (int64_t i = 0; i < streams; i++)
        modalities[i] = tanhf(dot_floats(mix->router + i * hidden, normed, hidden));
    for (int64_t c = 0; c < count; c++) {
        out[c] = 0;
        for (int64_t i = 0; i < streams; i++)
            out[c] += mix->coefficients[c * streams + i] * modalities[i];
    }
}

/* Up to 16 numbers of all streams h. predicted: receives the first one. */
static void predict_numbers(float *const *h, int64_t streams, const float *coefficients,
                            int64_t count, float *predicted) {
    f32x16 before[MAX_STREAMS];
    for (int64_t i = 0; i < streams; i++) before[i] = load_some(h[i], count);
    for (int64_t i = 0; i < streams; i++) {
        f32x16 change = {};
        for (int64_t j = 0; j < streams; j++)
            change = fused_madd(splat(coefficients[i * streams + j]), before[j], change);
        store_some(h[i], before[i] + change, count);
    }
    store_some(predicted, load_some(h[0], count), count);
}

/* Up to 16 numbers of all streams h. predicted: what the first one was before the layer. */
static void correct_numbers(float *const *h, int64_t streams, const float *coefficients,
                            int64_t count, const float *predicted) {
    f32x16 x = load_some(h[0], count), news = x - load_some(predicted, count);
    store_some(h[0], fused_madd(splat(coefficients[0]), news, x), count);
    for (int64_t i = 1; i < streams; i++) {
        f32x16 y = load_some(h[i], count);
        store_some(h[i], fused_madd(splat(coefficients[i] + 1.0f), news, y), count);
    }
}

static void mix_row(Worker *worker, const MixStreams *mix, int64_t row) {
    const Pass *pass = worker->pass;
    int64_t hidden = pass->model->hidden;
    float coefficients[MAX_STREAMS * MAX_STREAMS], *h[MAX_STREAMS];
    float *predicted = stream_rows(pass, 0) + row * hidden;
    for (int64_t i = 0; i < mix->streams; i++)
        h[i] = (i ? stream_rows(pass, i) : pass->x) + row * hidden;
    find_coefficients(mix, h[0], hidden, worker->own_unquantised, coefficients);
    for (int64_t d = 0; d < hidden; d += LANES) {
        int64_t count = MIN(LANES, hidden - d);
        if (mix->corrects)
            correct_numbers(h, mix->streams, coefficients, count, predicted + d);
        else
            predict_numbers(h, mix->streams, coefficients, count, predicted + d);
        for (int64_t i = 0; i < mix->streams; i++) h[i] += LANES;
    }
}

static void run_mix_streams(Worker *worker, const Block *block) {
    loop_begin(&worker->cursor, worker->pass->rows, 1);
    for (int64_t row; (row = loop_next(&worker->cursor)) >= 0;)
        mix_row(worker, block->details, row);
    barrier(&worker->cursor);
}

/* ---- the residual of low rank */

static void run_laurel(Worker *worker, const Block *block) {
    const Pass *pass = worker->pass;
    const Laurel *laurel = block->details;
    int64_t hidden = pass->model->hidden, rank = block->linear->out;
    prepare_input(worker, block_input(worker, block));
    const float *input = worker->unquantised;
    run_one_linear(worker, block, 0, pass->inner, rank);
    prepare_input(worker,
                  (Source){.kind = FROM_ROWS, .two_term = 1, .width = rank, .rows = pass->inner});
    run_one_linear(worker, block, 1, pass->after, hidden);
    loop_begin(&worker->cursor, pass->rows, 1);
    for (int64_t row; (row = loop_next(&worker->cursor)) >= 0;) {
        float *y = pass->after + row * hidden, *x = pass->x + row * hidden;
        if (laurel->norm.count) norm_group(&laurel->norm, y, 0);
        for (int64_t i = 0; i < hidden; i++)
            x[i] = (x[i] + block->scale * (y[i] + input[row * hidden + i])) * block->factor;
    }
    barrier(&worker->cursor);
}
