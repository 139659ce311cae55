/* RWKV-7 (Peng et al. 2025). A state begins with the normed row before; that of each head follows.
 */
#pragma once
#include "recurrence.h"
#include "rwkv.h"

/* What lies side by side in a row of pass->wide. The mixed rows in pass->inner have the order of
 * the first six. Decay, rate and value mix become the decays, the unit keys times the rates, and
 * the unit keys. */
enum { RECEPTANCE, KEY, VALUE, DECAY, RATE, GATE, VALUE_MIX, PARTS };
/* The pairs of linears, see families/blocks.py: what they read, and where their results go. */
static const int PAIR_READS[] = {DECAY, RATE, GATE, VALUE};
static const int PAIR_GIVES[] = {DECAY, RATE, GATE, VALUE_MIX};

/* The linears between the mixed rows and pass->wide. */
static void run_rwkv7_inputs(Worker *worker, const Block *block) {
    const Rwkv7Time *r = block->details;
    const Pass *pass = worker->pass;
    int64_t width = pass->model->hidden, stride = PARTS * width;
    for (int64_t k = 0; k <= VALUE; k++)
        run_mixed_linear(
            worker, block, k, k,
            (Linears){.epilogue = STORE, .out = pass->wide + k * width, .stride = stride});
    const Activation between[] = {{.kind = TANH}, {0}, {.kind = SIGMOID_OF}, {0}};
    for (int64_t i = 0; i < r->pairs; i++) {
        int64_t low = VALUE + 1 + i, rank = block->linear[low].out;
        float *few = pass->inner + (GATE + 1) * pass->rows * width;
        run_mixed_linear(worker, block, PAIR_READS[i], low,
                         (Linears){.epilogue = between[i].kind ? ACTIVATED : STORE,
                                   .out = few,
                                   .stride = rank,
                                   .activation = between + i});
        prepare_input(worker,
                      (Source){.kind = FROM_ROWS, .two_term = 1, .width = rank, .rows = few});
        run_one_linear(worker, block, low + r->pairs, pass->wide + PAIR_GIVES[i] * width, stride);
    }
}

/* 16 channels of a row: the value, decay, rate times unit key, and key that the state takes.
 * factor: one by the length of the head's scaled key. */
static void prepare_rwkv7_channels(const Rwkv7Time *r, int64_t channel, int64_t width, float *row,
                                   float *first, float factor) {
    row += channel, first += channel;
    f32x16 key = load(row + KEY * width), rate = sigmoid(load(row + RATE * width));
    f32x16 value = load(row + VALUE * width);
    f32x16 unit = key * load(r->key_scale + channel) * factor;
    if (r->is_first)
        store(first, value);
    else
        value = fused_madd(sigmoid(load(row + VALUE_MIX * width)), load(first) - value, value);
    store(row + VALUE * width, value);
    key *= fused_madd(rate - 1.0f, load(r->key_mix + channel), splat(1.0f));
    store(row + KEY * width, key);
    f32x16 decay = sigmoid(load(row + DECAY * width)) * -0.606530659712633f;
    store(row + DECAY * width, vector_exp(decay));
    store(row + RATE * width, -(unit * rate));
    store(row + VALUE_MIX * width, unit);
}

/* One by the length of a head's keys times their scale. */
static float length_factor(const float *key, const float *scale, int64_t count) {
    f32x16 squares = {};
    for (int64_t i = 0; i < count; i += LANES) {
        f32x16 scaled = load(key + i) * load(scale + i);
        squares = fused_madd(scaled, scaled, squares);
    }
    return 1.0f / MAX(sqrtf(reduce_add(squares)), 1e-12f);
}

/* Everything that a head's state takes and gives, for all rows of a sequence. */
static void prepare_rwkv7_head(const Pass *pass, const Block *block, int64_t head, int64_t index) {
    const Rwkv7Time *r = block->details;
    int64_t width = pass->model->hidden, begin = head * r->width, row = pass->first_row[index];
    float *state = state_of(pass, block, index);
    for (int64_t i = begin; i < begin + r->width; i += LANES) keep_row(pass, index, i, state + i);
    for (int64_t end = row + pass->sequences[index].rows; row < end; row++) {
        float *parts = pass->wide + row * PARTS * width;
        float factor = length_factor(parts + KEY * width + begin, r->key_scale + begin, r->width);
        for (int64_t i = begin; i < begin + r->width; i += LANES)
            prepare_rwkv7_channels(r, i, width, parts, pass->first_values + row * width, factor);
    }
}

/* `n` vectors of columns of one head through the rows of a sequence. rows: from the head on. */
INLINE void scan_rwkv7(const Columns *s, const float *rows, int64_t count, int64_t width,
                       int64_t column, float *out, const int n) {
    for (int64_t row = 0; row < count; row++, rows += PARTS * width, out += width) {
        f32x16 found[MOST_VECTORS], values[MOST_VECTORS], result[MOST_VECTORS];
        read_columns(s, rows + VALUE_MIX * width, found, n);
        for (int v = 0; v < n; v++) values[v] = load(rows + VALUE * width + column + v * LANES);
        update_channels(s, rows + DECAY * width, rows + RATE * width, found, rows + KEY * width,
                        values, rows, result, n);
        for (int v = 0; v < n; v++) store(out + v * LANES, result[v]);
    }
}

static void scan_rwkv7_unit(Worker *worker, const Block *block, int64_t index, int64_t head,
                            int64_t column) {
    const Pass *pass = worker->pass;
    const Rwkv7Time *r = block->details;
    int64_t width = r->width, all = pass->model->hidden, columns = columns_per_unit(width);
    int64_t count = pass->sequences[index].rows, first = pass->first_row[index];
    float *state = state_of(pass, block, index) + all + head * width * width + column;
    Columns s = take_columns(worker, state, width, width, columns, count);
    const float *rows = pass->wide + first * PARTS * all + head * width;
    float *out = pass->mixed + first * all + head * width + column;
    switch (columns / LANES) {
    case 4: scan_rwkv7(&s, rows, count, all, column, out, 4); break;
    case 2: scan_rwkv7(&s, rows, count, all, column, out, 2); break;
    default: scan_rwkv7(&s, rows, count, all, column, out, 1);
    }
    put_columns_back(&s, state, width, columns);
}

/* Norm a head of a row of the result, add the bonus of its own token, and multiply by the gate. */
static void finish_rwkv7_head(const Pass *pass, const Rwkv7Time *r, int64_t row, int64_t head) {
    int64_t width = pass->model->hidden, begin = head * r->width;
    float *out = pass->mixed + row * width + begin;
    const float *parts = pass->wide + row * PARTS * width + begin;
    f32x16 sums = {};
    for (int64_t i = 0; i < r->width; i += LANES)
        sums = fused_madd(load(parts + i) * load(parts + KEY * width + i),
                          load(r->bonus + begin + i), sums);
    float bonus = reduce_add(sums);
    norm_group(&r->norm, out, head);
    for (int64_t i = 0; i < r->width; i += LANES) {
        f32x16 y = fused_madd(load(parts + VALUE * width + i), splat(bonus), load(out + i));
        store(out + i, y * load(parts + GATE * width + i));
    }
}

/* The three loops between the linears. */
static void run_rwkv7_state(Worker *worker, const Block *block) {
    const Pass *pass = worker->pass;
    const Rwkv7Time *r = block->details;
    int64_t heads = r->heads, columns = columns_per_unit(r->width), parts = r->width / columns;
    loop_begin(&worker->cursor, pass->sequence_count * heads, 0);
    for (int64_t unit; (unit = loop_next(&worker->cursor)) >= 0;)
        prepare_rwkv7_head(pass, block, unit % heads, unit / heads);
    barrier(&worker->cursor);
    loop_begin(&worker->cursor, pass->sequence_count * heads * parts, 0);
    for (int64_t unit; (unit = loop_next(&worker->cursor)) >= 0;)
        scan_rwkv7_unit(worker, block, unit / parts / heads, unit / parts % heads,
                        unit % parts * columns);
    barrier(&worker->cursor);
    loop_begin(&worker->cursor, pass->rows * heads, 1);
    for (int64_t unit; (unit = loop_next(&worker->cursor)) >= 0;)
        finish_rwkv7_head(pass, r, unit / heads, unit % heads);
    barrier(&worker->cursor);
}

static void run_rwkv7_time(Worker *worker, const Block *block) {
    const Rwkv7Time *r = block->details;
    norm_rows(worker, block);
    mix_rows(worker, block, r->mixes, GATE + 1);
    run_rwkv7_inputs(worker, block);
    run_rwkv7_state(worker, block);
    run_mixed_output(worker, block, block->linear_count - 1, worker->pass->model->hidden);
}
