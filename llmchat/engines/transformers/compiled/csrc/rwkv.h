/* RWKV-4 (Peng et al. 2023). A state begins with the normed row before; that of time mixing goes on
 * with numerators, denominators and the largest exponents. */
#pragma once
#include "convolution.h"

/* Norm the rows of a block into pass->mixed. */
static void norm_rows(Worker *worker, const Block *block) {
    const Pass *pass = worker->pass;
    int64_t width = pass->model->hidden;
    const float *x = block->reads_saved ? pass->saved : pass->x;
    loop_begin(&worker->cursor, pass->rows, 1);
    for (int64_t row; (row = loop_next(&worker->cursor)) >= 0;)
        norm_row(&block->norm, x + row * width, 0, width, pass->mixed + row * width);
    barrier(&worker->cursor);
}

/* Mix each row with the one before: `count` times, each into rows of pass->inner of their own.
 * mixes: [count, width] */
static void mix_rows(Worker *worker, const Block *block, const float *mixes, int64_t count) {
    const Pass *pass = worker->pass;
    int64_t width = pass->model->hidden;
    loop_begin(&worker->cursor, pass->rows, 1);
    for (int64_t row; (row = loop_next(&worker->cursor)) >= 0;) {
        int64_t index = pass->sequence_of[row];
        const float *x = pass->mixed + row * width;
        const float *before =
            row > pass->first_row[index] ? x - width : state_of(pass, block, index);
        for (int64_t k = 0; k < count; k++)
            for (int64_t i = 0; i < width; i += LANES) {
                f32x16 mix = load(mixes + k * width + i), old = load(before + i);
                store(pass->inner + (k * pass->rows + row) * width + i,
                      fused_madd(load(x + i), mix, old * (1.0f - mix)));
            }
    }
    barrier(&worker->cursor);
}

/* Linear number `index` of mixed rows number `part`. */
static void run_mixed_linear(Worker *worker, const Block *block, int64_t part, int64_t index,
                             Linears target) {
    const Pass *pass = worker->pass;
    int64_t width = pass->model->hidden;
    prepare_input(worker, (Source){.kind = FROM_ROWS,
                                   .width = width,
                                   .rows = pass->inner + part * pass->rows * width});
    target.matrices = block->linear + index, target.linear = block->first_linear + index;
    target.count = 1;
    run_linears(worker, &target);
}

/* 16 channels of the weighted averages. rows: key, value and receptance, `width` apart. */
static void weigh_channels(const RwkvTime *r, int64_t channel, const float *rows, int64_t count,
                           int64_t width, float *state, float *out) {
    f32x16 above = load(state + width), below = load(state + 2 * width);
    f32x16 largest = load(state + 3 * width), decay = load(r->decay + channel);
    f32x16 first = load(r->first + channel);
    /* Before the first token nothing weighs anything. */
    largest = blend(below == 0.0f, splat(-1e38f), largest);
    for (int64_t row = 0; row < count; row++, rows += 3 * width, out += width) {
        f32x16 key = load(rows), value = load(rows + width);
        f32x16 own = key + first, most = vector_max(largest, own);
        f32x16 old = vector_exp(largest - most), new = vector_exp(own - most);
        f32x16 average = fused_madd(new, value, old * above) / fused_madd(old, below, new);
        store(out, sigmoid(load(rows + 2 * width)) * average);
        most = vector_max(largest - decay, key);
        old = vector_exp(largest - decay - most), new = vector_exp(key - most);
        above = fused_madd(new, value, old * above), below = fused_madd(old, below, new);
        largest = most;
    }
    store(state + width, above), store(state + 2 * width, below);
    store(state + 3 * width, largest);
}

/* The last normed row of 16 channels, for the next token. */
static void keep_row(const Pass *pass, int64_t index, int64_t channel, float *state) {
    int64_t last = pass->first_row[index] + pass->sequences[index].rows - 1;
    store(state, load(pass->mixed + last * pass->model->hidden + channel));
}

static void run_weighing(Worker *worker, const Block *block) {
    const Pass *pass = worker->pass;
    int64_t width = pass->model->hidden, units = width / LANES;
    loop_begin(&worker->cursor, pass->sequence_count * units, 0);
    for (int64_t unit; (unit = loop_next(&worker->cursor)) >= 0;) {
        int64_t index = unit / units, channel = unit % units * LANES;
        int64_t row = pass->first_row[index];
        float *state = state_of(pass, block, index) + channel;
        keep_row(pass, index, channel, state);
        weigh_channels(block->details, channel, pass->wide + row * 3 * width + channel,
                       pass->sequences[index].rows, width, state,
                       pass->mixed + row * width + channel);
    }
    barrier(&worker->cursor);
}

static void run_rwkv_time(Worker *worker, const Block *block) {
    const Pass *pass = worker->pass;
    const RwkvTime *r = block->details;
    int64_t width = pass->model->hidden;
    norm_rows(worker, block);
    mix_rows(worker, block, r->mixes, 3);
    for (int64_t k = 0; k < 3; k++)
        run_mixed_linear(
            worker, block, k, k,
            (Linears){.epilogue = STORE, .out = pass->wide + k * width, .stride = 3 * width});
    run_weighing(worker, block);
    run_mixed_output(worker, block, 3, width);
}

/* Keep the last normed row of each sequence. */
static void keep_rows(Worker *worker, const Block *block) {
    const Pass *pass = worker->pass;
    int64_t units = pass->model->hidden / LANES;
    loop_begin(&worker->cursor, pass->sequence_count * units, 0);
    for (int64_t unit; (unit = loop_next(&worker->cursor)) >= 0;) {
        int64_t index = unit / units, channel = unit % units * LANES;
        keep_row(pass, index, channel, state_of(pass, block, index) + channel);
    }
    barrier(&worker->cursor);
}

/* x += sigmoid(receptance) * value */
static void add_received(Worker *worker, const Block *block) {
    const Pass *pass = worker->pass;
    int64_t width = pass->model->hidden, units = width / LANES;
    loop_begin(&worker->cursor, pass->sequence_count * units, 0);
    for (int64_t unit; (unit = loop_next(&worker->cursor)) >= 0;) {
        int64_t index = unit / units, channel = unit % units * LANES;
        int64_t first = pass->first_row[index], end = first + pass->sequences[index].rows;
        keep_row(pass, index, channel, state_of(pass, block, index) + channel);
        for (int64_t row = first; row < end; row++) {
            int64_t at = row * width + channel;
            f32x16 received = sigmoid(load(pass->after + at)) * load(pass->inner + at);
            store(pass->x + at, load(pass->x + at) + received);
        }
    }
    barrier(&worker->cursor);
}

static void run_rwkv_channel(Worker *worker, const Block *block) {
    const Pass *pass = worker->pass;
    const RwkvChannel *r = block->details;
    const Activation activation = {.kind = RELU2};
    int64_t width = pass->model->hidden, inner = block->linear->out;
    int gated = block->linear_count == 3; /* RWKV-7 has no receptance */
    norm_rows(worker, block);
    mix_rows(worker, block, r->mixes, gated ? 2 : 1);
    run_mixed_linear(
        worker, block, 0, 0,
        (Linears){
            .epilogue = ACTIVATED, .out = pass->wide, .stride = inner, .activation = &activation});
    if (gated)
        run_mixed_linear(worker, block, 1, 1,
                     (Linears){.epilogue = STORE, .out = pass->after, .stride = width});
    prepare_input(worker,
                  (Source){.kind = FROM_ROWS, .two_term = 1, .width = inner, .rows = pass->wide});
    if (!gated) {
        keep_rows(worker, block);
        run_output(worker, block, 1);
        return;
    }
    run_linears(worker, &(Linears){.matrices = block->linear + 2,
                                   .linear = block->first_linear + 2,
                                   .count = 1,
                                   .epilogue = STORE,
                                   .out = pass->inner,
                                   .stride = width});
    add_received(worker, block);
}
