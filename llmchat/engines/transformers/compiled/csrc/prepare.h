/* The steps of a pass on single rows: embedding, norms, and the quantised input of the next
 * linear. */
#pragma once
#include <math.h>

#include "grouped_rows.h"
#include "linear.h"
#include "norms.h"

/* A position as a rotary embedding counts it. */
static int64_t counted(const Rotary *rotary, const SequenceRows *sequence, int64_t position) {
    int64_t last = sequence->context - 1;
    if (rotary->counts == COUNTS_CONTEXT) return MIN(position, MAX(last, 0));
    return rotary->counts == COUNTS_ANSWER ? MAX(position - last, 0) : position;
}

/* The cosines and sines of a row's position, for each rotary embedding. */
static void find_rotations(const Pass *pass, const SequenceRows *sequence, int64_t row,
                           int64_t position) {
    int64_t at = row * pass->sizes.rotary_pairs;
    for (int64_t k = 0; k < pass->model->rotaries; k++) {
        const Rotary *rotary = pass->model->rotary + k;
        int is_long = sequence->is_long && rotary->long_frequencies;
        const float *frequencies = is_long ? rotary->long_frequencies : rotary->frequencies;
        float scale = is_long ? rotary->long_scale : rotary->scale;
        float turns = counted(rotary, sequence, position);
        for (int64_t i = 0; i < rotary->half; i++, at++) {
            float angle = turns * frequencies[i];
            pass->cosines[at] = cosf(angle) * scale;
            pass->sines[at] = sinf(angle) * scale;
        }
    }
}

static void read_embedding(const Model *m, int64_t token, float *x) {
    if (!m->embedding) {
        read_grouped_row(&m->tokens, token, x);
        return;
    }
    const bf16 *embedding = m->embedding + token * m->hidden;
    for (int64_t i = 0; i < m->hidden; i++) x[i] = bf16_to_float(embedding[i]);
}

/* Start a row: its embedding and rotations. */
static void embed_row(const Pass *pass, int64_t row) {
    const Model *m = pass->model;
    int32_t index = pass->sequence_of[row];
    const SequenceRows *sequence = pass->sequences + index;
    int64_t in_sequence = row - pass->first_row[index], position = sequence->past + in_sequence;
    const float *learned = m->positions ? m->positions + position * m->hidden : NULL;
    float *x = pass->x + row * m->hidden;
    int32_t invalid = 0;
    read_embedding(m, sequence->ids[in_sequence], x);
    for (int64_t i = 0; i < m->hidden; i++) {
        invalid |= !(__builtin_fabsf(x[i]) < __builtin_inff());
        x[i] *= m->embedding_scale;
        if (learned) x[i] += learned[i];
    }
    if (invalid) __atomic_store_n(pass->has_invalid + index, 1, __ATOMIC_RELAXED);
    if (m->embedding_norm.count) norm_group(&m->embedding_norm, x, 0);
    find_rotations(pass, sequence, row, position);
}

/* Multiply the results of a head with the sigmoid of its gate. */
static void apply_gate(const float *gate, float *out, int64_t count) {
    for (int64_t i = 0; i < count; i += LANES)
        store(out + i, load(out + i) * sigmoid(load(gate + i)));
}

/* The attention output of heads [begin, end) of a row, merged from its spans, then the sink.
 * out: [heads * width] */
static void merge_heads(Worker *worker, const Attention *a, int64_t row, int64_t begin, int64_t end,
                        float *out) {
    const Pass *pass = worker->pass;
    int64_t index = pass->sequence_of[row], in_sequence = row - pass->first_row[index];
    const AttentionShare *share = worker->shares + index;
    int64_t position = pass->sequences[index].past + in_sequence, width = a->values.width;
    int64_t per_head = share->states_per_head, size = 2 + width, from = 0, used = 1;
    if (pass->sequences[index].rows <= SPLIT_ROWS) {
        from = first_seen(a, position) / SPAN - share->first_span;
        int64_t end = seen_end(a, pass->sequences + index, position);
        used = (end + SPAN - 1) / SPAN - share->first_span;
    }
    for (int64_t head = begin; head < end; head++, out += width) {
        int64_t first = share->first_state + (in_sequence * a->queries.count + head) * per_head;
        const float *states = pass->states + first * size;
        float *merged = worker->state;
        for (int64_t i = from; i < used; i++) {
            const float *state = states + i * size;
            merge_span(merged, state[0], state[1], state + 2, width, i == from);
        }
        if (a->sinks) merge_sink(merged, a->sinks[head], width);
        float factor = 1.0f / merged[1];
        for (int64_t d = 0; d < width; d += LANES) store(out + d, load(merged + 2 + d) * factor);
        if (a->gates.count)
            apply_gate(pass->wide + row * a->width + head_begin(&a->gates, head), out, width);
    }
}

/* What the next linear takes: rows as they are, a norm of rows, the attention output, or the final
 * norm of the rows that want logits. */
enum { FROM_ROWS, FROM_ATTENTION, FROM_FINAL_NORM };

/* rows: [R, width]; norm: of them, or NULL. two_term: whether the activations get 16 bits, as the
 * sum of two terms of 8: those within the MLP, whose outliers are the widest, and the input of the
 * output head. For the others the gain in quality is not worth the time (docs/log.md). order: of
 * the columns of the matrices that read it, or NULL. */
typedef struct {
    int kind, two_term;
    int64_t width;
    const float *rows;
    const Norm *norm;
    const Attention *attention;
    const int32_t *order;
} Source;

/* In models with fewer numbers a token, activations of 8 bits behind norms change the answers; they
 * can afford a second term, which gives those of fp32 (docs/log.md). */
#define SMALL_HIDDEN 768

/* Whether the input of a matrix within an MLP gets two terms. In larger models, weights of few bits
 * are less exact than activations of 8 bits. */
static int needs_two_terms(const Model *model, const Matrix *matrix) {
    return !matrix->grouping || matrix->grouping->bits == 8 || model->hidden < SMALL_HIDDEN;
}

/* What the inputs of a block read. */
static Source block_input(const Worker *worker, const Block *block) {
    const Pass *pass = worker->pass;
    int is_grouped = (block->kind == ATTENTION || block->kind == MLP) && block->linear->grouping;
    return (Source){.kind = FROM_ROWS,
                    .two_term = is_grouped && pass->model->hidden < SMALL_HIDDEN,
                    .width = pass->model->hidden,
                    .rows = block->reads_saved ? pass->saved : pass->x,
                    .norm = block->norm.count ? &block->norm : NULL,
                    .order = block->linear_count ? block->linear->order : NULL};
}

/* Columns [begin, end) of one row. */
static void prepare_row(Worker *worker, const Source *source, int64_t row, int64_t begin,
                        int64_t end) {
    const Pass *pass = worker->pass;
    const Activations *acts = &worker->acts;
    float squares = 0, *target = worker->prepared + row * acts->in;
    int is_final = source->kind == FROM_FINAL_NORM;
    int64_t source_row = is_final ? pass->logit_rows[row] : row;
    if (source->kind == FROM_ATTENTION) {
        int64_t width = source->attention->values.width;
        merge_heads(worker, source->attention, row, begin / width, end / width, target + begin);
    } else if (source->norm)
        squares = norm_row(source->norm, source->rows + source_row * acts->in, begin, end, target);
    int64_t first = begin / GROUP, last = end == acts->in ? acts->groups : end / GROUP;
    float *residual = worker->two_term ? worker->residual_row : NULL;
    const float *x = worker->unquantised + row * acts->in;
    if (source->order) {
        for (int64_t i = 0; i < acts->in; i++) worker->ordered_row[i] = x[source->order[i]];
        x = worker->ordered_row;
    }
    quantise(acts, row, x, first, last, residual);
    if (residual) quantise(&worker->residual, row, residual, first, last, NULL);
    if (!is_final) return;
    /* Quantisation turns NaN and infinity into numbers: the logits must not look valid. */
    if (!(squares < __builtin_inff()) || pass->has_invalid[pass->sequence_of[source_row]])
        poison_groups(acts, row, first, last);
}

/* Quantise the input of the next linear. A unit of work is a tile of rows, which are interleaved in
 * memory, and so many of their columns that there is work for every thread. */
static void prepare_input(Worker *worker, Source source) {
    const Pass *pass = worker->pass;
    int64_t rows = source.kind == FROM_FINAL_NORM ? pass->logit_count : pass->rows;
    int64_t in = source.width;
    int own = rows <= REDUNDANT_ROWS;
    worker->two_term = source.two_term;
    worker->acts = with_shape(own ? worker->own_acts : pass->acts, rows, in);
    worker->residual = with_shape(own ? worker->own_residual : pass->residual, rows, in);
    worker->prepared = own ? worker->own_unquantised : pass->unquantised;
    worker->unquantised = worker->prepared;
    if (source.kind == FROM_ROWS && !source.norm) worker->unquantised = source.rows;
    if (own) {
        for (int64_t row = 0; row < rows; row++) prepare_row(worker, &source, row, 0, in);
        return;
    }
    int64_t tiles = (rows + TILE_ROWS - 1) / TILE_ROWS;
    int64_t parts = (UNITS_PER_THREAD * worker->cursor.threads + tiles - 1) / tiles;
    if (source.order) parts = 1;
    /* A part has whole groups and whole heads; a head is a multiple of half a group. */
    int64_t multiple = GROUP;
    if (source.kind == FROM_ATTENTION) {
        multiple = source.attention->values.width;
        if (multiple % GROUP) multiple *= 2;
    }
    int64_t columns = ROUND_UP((in + parts - 1) / parts, multiple);
    parts = (in + columns - 1) / columns;
    loop_begin(&worker->cursor, tiles * parts, 1);
    for (int64_t unit; (unit = loop_next(&worker->cursor)) >= 0;) {
        int64_t first = unit / parts * TILE_ROWS, begin = unit % parts * columns;
        for (int64_t row = first; row < MIN(first + TILE_ROWS, rows); row++)
            prepare_row(worker, &source, row, begin, MIN(begin + columns, in));
    }
    barrier(&worker->cursor);
}

/* x += scale * norm(what a block left in pass->after), then x *= factor. */
static void add_normed(Worker *worker, const Block *block) {
    const Pass *pass = worker->pass;
    int64_t hidden = pass->model->hidden;
    loop_begin(&worker->cursor, pass->rows, 1);
    for (int64_t row; (row = loop_next(&worker->cursor)) >= 0;) {
        float *y = pass->after + row * hidden, *x = pass->x + row * hidden;
        if (block->post_norm.count) norm_group(&block->post_norm, y, 0);
        for (int64_t i = 0; i < hidden; i++) x[i] = (x[i] + block->scale * y[i]) * block->factor;
    }
    barrier(&worker->cursor);
}

/* Linear number `index` of a block, whose input is prepared, gives what the block adds to the
 * stream. */
static void run_output(Worker *worker, const Block *block, int64_t index) {
    const Pass *pass = worker->pass;
    int is_plain = !block->post_norm.count && block->factor == 1.0f;
    run_linears(worker, &(Linears){.matrices = block->linear + index,
                                   .linear = block->first_linear + index,
                                   .count = 1,
                                   .epilogue = is_plain ? ADD : STORE,
                                   .out = is_plain ? pass->x : pass->after,
                                   .stride = pass->model->hidden,
                                   .factor = block->scale});
    if (!is_plain) add_normed(worker, block);
}
