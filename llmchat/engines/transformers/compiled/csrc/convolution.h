/* Causal convolutions along the tokens of a text, and blocks of nothing else (LFM2). */
#pragma once
#include "prepare.h"

/* Columns that one unit of work takes through all rows of a sequence. */
#define CHANNELS_PER_UNIT 64

/* Numbers that come from earlier rows, [kernel - 1, channels]: at the beginning of a state. */
static int64_t convolution_state(const Convolution *c) { return (c->kernel - 1) * c->channels; }

static float *state_of(const Pass *pass, const Block *block, int64_t sequence) {
    return pass->sequences[sequence].states[block - pass->model->block];
}

/* The number of rows `at` before the first one, or after it, in a column of 16 channels. */
INLINE f32x16 row_at(const Convolution *c, const float *rows, int64_t stride, const float *state,
                     int64_t at) {
    return load(at < 0 ? state + (c->kernel - 1 + at) * c->channels : rows + at * stride);
}

/* The sum of 16 channels at a row. */
INLINE f32x16 convolve_at(const Convolution *c, int64_t channel, const float *rows, int64_t stride,
                          const float *state, int64_t row) {
    f32x16 y = c->bias ? load(c->bias + channel) : (f32x16){};
    for (int64_t j = 0; j < c->kernel; j++) {
        f32x16 x = row_at(c, rows, stride, state, row - (c->kernel - 1) + j);
        y = fused_madd(x, load(c->weight + j * c->channels + channel), y);
    }
    return y;
}

/* Let the state of 16 channels hold the last rows. */
INLINE void keep_last(const Convolution *c, const float *rows, int64_t stride, float *state,
                      int64_t count) {
    for (int64_t i = 0; i < c->kernel - 1; i++)
        store(state + i * c->channels, row_at(c, rows, stride, state, count - (c->kernel - 1) + i));
}

/* `width` channels from `channel` on of `count` rows, with silu. rows, out: of the first channel.
 * state: of channel 0. */
static void convolve(const Convolution *c, int64_t channel, int64_t width, const float *rows,
                     int64_t stride, int64_t count, float *state, float *out, int64_t out_stride) {
    state += channel;
    for (int64_t row = 0; row < count; row++)
        for (int64_t i = 0; i < width; i += LANES) {
            f32x16 y = convolve_at(c, channel + i, rows + i, stride, state + i, row);
            store(out + row * out_stride + i, y * sigmoid(y));
        }
    for (int64_t i = 0; i < width; i += LANES) keep_last(c, rows + i, stride, state + i, count);
}

/* 16 channels of a short convolution: B, C and x of a row are `width` apart. B * x is computed
 * where it was, in the place of B. */
static void gated_convolution(const Convolution *c, int64_t channel, float *rows, int64_t count,
                              float *state, float *out) {
    int64_t width = c->channels, stride = 3 * width;
    for (int64_t row = 0; row < count; row++) {
        float *b = rows + row * stride;
        store(b, load(b) * load(b + 2 * width));
        f32x16 y = convolve_at(c, channel, rows, stride, state, row);
        store(out + row * width, load(b + width) * y);
    }
    keep_last(c, rows, stride, state, count);
}

static void run_convolutions(Worker *worker, const Block *block) {
    const Pass *pass = worker->pass;
    const Convolution *c = block->details;
    int64_t width = c->channels, units = (width + CHANNELS_PER_UNIT - 1) / CHANNELS_PER_UNIT;
    loop_begin(&worker->cursor, pass->sequence_count * units, 0);
    for (int64_t unit; (unit = loop_next(&worker->cursor)) >= 0;) {
        int64_t index = unit / units, first = unit % units * CHANNELS_PER_UNIT;
        int64_t row = pass->first_row[index], end = MIN(first + CHANNELS_PER_UNIT, width);
        for (int64_t i = first; i < end; i += LANES)
            gated_convolution(c, i, pass->wide + row * 3 * width + i, pass->sequences[index].rows,
                              state_of(pass, block, index) + i, pass->mixed + row * width + i);
    }
    barrier(&worker->cursor);
}

/* The input linears of a block, side by side in pass->wide. */
static void run_inputs(Worker *worker, const Block *block, int64_t width) {
    prepare_input(worker, block_input(worker, block));
    run_linears(worker, &(Linears){.matrices = block->linear,
                                   .linear = block->first_linear,
                                   .count = block->inputs,
                                   .epilogue = STORE,
                                   .out = worker->pass->wide,
                                   .stride = width});
}

/* The output linear of a block, of the rows in pass->mixed. */
static void run_mixed_output(Worker *worker, const Block *block, int64_t index, int64_t width) {
    prepare_input(
        worker,
        (Source){.kind = FROM_ROWS, .two_term = 1, .width = width, .rows = worker->pass->mixed});
    run_output(worker, block, index);
}

static void run_short_convolution(Worker *worker, const Block *block) {
    const Convolution *c = block->details;
    run_inputs(worker, block, 3 * c->channels);
    run_convolutions(worker, block);
    run_mixed_output(worker, block, block->inputs, c->channels);
}
