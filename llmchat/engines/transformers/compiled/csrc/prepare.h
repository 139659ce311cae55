/* The steps of a pass on single rows: embedding, RMS norm, and the quantised input of the next
 * linear. */
#pragma once
#include <math.h>

#include "layout.h"

/* Start a row: its embedding, and the cosines and sines of its position. */
static void embed_row(const Pass *pass, int64_t row) {
    const Model *m = pass->model;
    int32_t index = pass->sequence_of[row];
    const SequenceRows *sequence = pass->sequences + index;
    int64_t in_sequence = row - pass->first_row[index], half = m->head_dim / 2;
    const bf16 *embedding = m->embedding + sequence->ids[in_sequence] * m->hidden;
    int32_t invalid = 0;
    for (int64_t i = 0; i < m->hidden; i++) {
        pass->x[row * m->hidden + i] = bf16_to_float(embedding[i]);
        invalid |= (embedding[i] & 0x7f80) == 0x7f80;
    }
    if (invalid) __atomic_store_n(pass->has_invalid + index, 1, __ATOMIC_RELAXED);
    for (int64_t i = 0; i < half; i++) {
        float angle = (float)(sequence->past + in_sequence) * m->frequencies[i];
        pass->cosines[row * half + i] = cosf(angle);
        pass->sines[row * half + i] = sinf(angle);
    }
}

/* Columns [begin, end) of the RMS norm (Zhang & Sennrich 2019) of x: [count]. Returns the sum of
 * squares of the whole row. */
static __attribute__((noinline)) float rms_norm(const float *x, const float *weight, int64_t count,
                                                float eps, int64_t begin, int64_t end, float *out) {
    f32x16 squares = {};
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) squares = fused_madd(load(x + i), load(x + i), squares);
    float total = reduce_add(squares);
    for (; i < count; i++) total += x[i] * x[i];
    float factor = 1.0f / sqrtf(total / count + eps);
    for (i = begin; i + LANES <= end; i += LANES)
        store(out + i, load(x + i) * factor * load(weight + i));
    for (; i < end; i++) out[i] = x[i] * factor * weight[i];
    return total;
}

/* The attention output of heads [begin, end) of a row, merged from its spans.
 * out: [heads * head_dim] */
static void merge_heads(Worker *worker, int64_t row, int64_t begin, int64_t end, float *out) {
    const Pass *pass = worker->pass;
    const Model *m = pass->model;
    int64_t index = pass->sequence_of[row], in_sequence = row - pass->first_row[index];
    const SequenceRows *sequence = pass->sequences + index;
    int64_t per_head = states_per_head(sequence), size = 2 + m->head_dim;
    int64_t used = MIN(per_head, (sequence->past + in_sequence) / SPAN + 1);
    for (int64_t head = begin; head < end; head++) {
        int64_t first = pass->first_state[index] + (in_sequence * m->heads + head) * per_head;
        const float *states = pass->states + first * size;
        for (int64_t i = 0; i < used; i++) {
            const float *state = states + i * size;
            merge_span(worker->state, state[0], state[1], state + 2, m->head_dim, i == 0);
        }
        float factor = 1.0f / worker->state[1];
        for (int64_t d = 0; d < m->head_dim; d += LANES)
            store(out + head * m->head_dim + d, load(worker->state + 2 + d) * factor);
    }
}

/* What the next linear takes: a norm of the residual stream, the attention output, silu(gate) * up,
 * or the final norm of the rows that want logits. */
enum { FROM_NORM, FROM_ATTENTION, FROM_MLP, FROM_FINAL_NORM };

static int64_t input_width(const Model *m, int source) {
    if (source == FROM_ATTENTION) return m->heads * m->head_dim;
    return source == FROM_MLP ? m->inner : m->hidden;
}

/* Activations that get 16 bits, as the sum of two terms of 8: those within the MLP, whose outliers
 * are the widest, and the input of the output head. For the others the gain in quality is not worth
 * the time (docs/log.md). */
static int is_two_term(int source) { return source == FROM_MLP || source == FROM_FINAL_NORM; }

/* Columns [begin, end) of one row. */
static void prepare_row(Worker *worker, int source, const float *norm, int64_t row, int64_t begin,
                        int64_t end) {
    const Pass *pass = worker->pass;
    const Model *m = pass->model;
    const Activations *acts = &worker->acts;
    float *unquantised = worker->unquantised + row * acts->in, squares = 0;
    int64_t source_row = source == FROM_FINAL_NORM ? pass->logit_rows[row] : row;
    const float *x = pass->x + source_row * m->hidden;
    if (source == FROM_ATTENTION)
        merge_heads(worker, row, begin / m->head_dim, end / m->head_dim, unquantised);
    if (source == FROM_NORM || source == FROM_FINAL_NORM)
        squares = rms_norm(x, norm, m->hidden, m->eps, begin, end, unquantised);
    int64_t first = begin / GROUP, last = end == acts->in ? acts->groups : end / GROUP;
    float *residual = worker->two_term ? worker->residual_row : NULL;
    quantise(acts, row, unquantised, first, last, residual);
    if (residual) quantise(&worker->residual, row, residual, first, last, NULL);
    if (source != FROM_FINAL_NORM) return;
    /* Quantisation turns NaN and infinity into numbers: the logits must not look valid. */
    if (!(squares < __builtin_inff()) || pass->has_invalid[pass->sequence_of[source_row]])
        poison_groups(acts, row, first, last);
}

/* Quantise the input of the next linear. norm: weight of the norm, if the source is one. A unit of
 * work is a tile of rows, which are interleaved in memory, and so many of their columns that there
 * is work for every thread. */
static void prepare_input(Worker *worker, int source, const float *norm) {
    const Pass *pass = worker->pass;
    const Model *m = pass->model;
    int64_t rows = source == FROM_FINAL_NORM ? pass->logit_count : pass->rows;
    int64_t in = input_width(m, source);
    int own = rows <= REDUNDANT_ROWS;
    worker->two_term = is_two_term(source);
    worker->acts = with_shape(own ? worker->own_acts : pass->acts, rows, in);
    worker->residual = with_shape(own ? worker->own_residual : pass->residual, rows, in);
    worker->unquantised = own ? worker->own_unquantised : pass->unquantised;
    if (source == FROM_MLP) worker->unquantised = pass->inner;
    if (own) {
        for (int64_t row = 0; row < rows; row++) prepare_row(worker, source, norm, row, 0, in);
        return;
    }
    int64_t tiles = (rows + TILE_ROWS - 1) / TILE_ROWS;
    int64_t parts = (UNITS_PER_THREAD * worker->cursor.threads + tiles - 1) / tiles;
    /* A part has whole groups and whole heads; a head is a multiple of half a group. */
    int64_t multiple = GROUP;
    if (source == FROM_ATTENTION) multiple = m->head_dim % GROUP ? 2 * m->head_dim : m->head_dim;
    int64_t columns = ROUND_UP((in + parts - 1) / parts, multiple);
    parts = (in + columns - 1) / columns;
    loop_begin(&worker->cursor, tiles * parts, 1);
    for (int64_t unit; (unit = loop_next(&worker->cursor)) >= 0;) {
        int64_t first = unit / parts * TILE_ROWS, begin = unit % parts * columns;
        for (int64_t row = first; row < MIN(first + TILE_ROWS, rows); row++)
            prepare_row(worker, source, norm, row, begin, MIN(begin + columns, in));
    }
    barrier(&worker->cursor);
}
