/* Gated DeltaNet (Yang et al. 2024), and Kimi Delta Attention, whose decays are by channel. */
#pragma once
#include "latent.h"
#include "recurrence.h"

/* A row of pass->inner: queries, keys and values after the convolution, then for each head of
 * values its beta and its decay; by channel: all betas, the decays, and the decays times keys. */
static int64_t delta_row(const DeltaNet *d) { return d->convolution.channels + decays_of(d); }

static void scale_to_unit(float *x, int64_t count, float factor) {
    factor /= sqrtf(sum_of_squares(x, count, 0.0f) + 1e-6f);
    for (int64_t i = 0; i < count; i += LANES) store(x + i, load(x + i) * factor);
}

/* Convolve head `head` of a part whose channels begin at `channel`. */
static void convolve_head(const Pass *pass, const Block *block, const Heads *heads, int64_t channel,
                          int64_t head, int64_t index) {
    const DeltaNet *d = block->details;
    int64_t row = pass->first_row[index];
    channel += head * heads->width;
    convolve(&d->convolution, channel, heads->width,
             pass->wide + row * d->width + head_begin(heads, head), d->width,
             pass->sequences[index].rows, state_of(pass, block, index),
             pass->inner + row * delta_row(d) + channel, delta_row(d));
}

/* The decays of the channels of a head, and these times its keys. */
static void find_channel_decays(const DeltaNet *d, int64_t head, const float *x, float *out) {
    int64_t width = d->keys.width, all = d->keys.count * width, first = head * width;
    const float *key = out - d->values.count - d->convolution.channels + all + first;
    for (int64_t i = 0; i < width; i++) {
        float decay = expf(-d->rate[head] * softplus(x[i] + d->time_bias[first + i]));
        out[first + i] = decay;
        out[all + first + i] = decay * key[i];
    }
}

/* How much of the state is left at each row, and how much is corrected. */
static void find_decays(const Pass *pass, const DeltaNet *d, int64_t head, int64_t index) {
    int64_t first = pass->first_row[index], end = first + pass->sequences[index].rows;
    int64_t decay = head_begin(&d->decay, head), beta = head_begin(&d->beta, head);
    for (int64_t row = first; row < end; row++) {
        const float *x = pass->wide + row * d->width;
        float *out = pass->inner + row * delta_row(d) + d->convolution.channels;
        out[head] = 1.0f / (1.0f + expf(-x[beta]));
        if (d->by_channel)
            find_channel_decays(d, head, x + decay, out + d->values.count);
        else
            out[d->values.count + head] =
                expf(-d->rate[head] * softplus(x[decay] + d->time_bias[head]));
    }
}

/* Everything that one head of queries and keys, and the heads of values that share it, need. */
static void prepare_delta_head(const Pass *pass, const Block *block, int64_t head, int64_t index) {
    const DeltaNet *d = block->details;
    int64_t shared = d->values.count / d->keys.count, width = d->keys.width;
    int64_t keys = d->keys.count * width, first = pass->first_row[index];
    convolve_head(pass, block, &d->queries, 0, head, index);
    convolve_head(pass, block, &d->keys, keys, head, index);
    for (int64_t row = first; row < first + pass->sequences[index].rows; row++) {
        float *q = pass->inner + row * delta_row(d) + head * width;
        scale_to_unit(q, width, 1.0f / sqrtf((float)width));
        scale_to_unit(q + keys, width, 1.0f);
    }
    for (int64_t value = head * shared; value < (head + 1) * shared; value++) {
        convolve_head(pass, block, &d->values, 2 * keys, value, index);
        find_decays(pass, d, value, index);
    }
}

/* `n` vectors of columns of one head through the rows of a sequence. v, out: of these columns. */
INLINE void scan_delta(const DeltaNet *d, const Columns *s, const float *rows, int64_t count,
                       int64_t head, int64_t column, float *out, const int n) {
    int64_t width = d->keys.width, keys = d->keys.count * width, stride = delta_row(d);
    int64_t key = head / (d->values.count / d->keys.count) * width;
    int64_t value = 2 * keys + head * d->values.width + column;
    for (int64_t row = 0; row < count; row++, rows += stride) {
        const float *q = rows + key, *k = q + keys, *decays = rows + d->convolution.channels;
        float beta = decays[head], decay = decays[d->values.count + head];
        f32x16 known[MOST_VECTORS], result[MOST_VECTORS];
        read_columns(s, k, known, n);
        for (int v = 0; v < n; v++)
            known[v] = (load(rows + value + v * LANES) - known[v] * decay) * beta;
        update_columns(s, decay, k, known, q, result, n);
        for (int v = 0; v < n; v++)
            store(out + row * d->values.count * d->values.width + v * LANES, result[v]);
    }
}

/* The same where decays are by channel. */
INLINE void scan_delta_channels(const DeltaNet *d, const Columns *s, const float *rows,
                                int64_t count, int64_t head, int64_t column, float *out,
                                const int n) {
    int64_t width = d->keys.width, keys = d->keys.count * width, stride = delta_row(d);
    int64_t key = head * width, value = 2 * keys + head * d->values.width + column;
    for (int64_t row = 0; row < count; row++, rows += stride) {
        const float *betas = rows + d->convolution.channels, *q = rows + key;
        const float *decays = betas + d->values.count + key;
        f32x16 known[MOST_VECTORS], result[MOST_VECTORS];
        read_columns(s, decays + keys, known, n);
        for (int v = 0; v < n; v++)
            known[v] = (load(rows + value + v * LANES) - known[v]) * betas[head];
        update_channels(s, decays, NULL, NULL, q + keys, known, q, result, n);
        for (int v = 0; v < n; v++)
            store(out + row * d->values.count * d->values.width + v * LANES, result[v]);
    }
}

INLINE void scan_delta_rule(const DeltaNet *d, const Columns *s, const float *rows, int64_t count,
                            int64_t head, int64_t column, float *out, const int n) {
    if (d->by_channel)
        scan_delta_channels(d, s, rows, count, head, column, out, n);
    else
        scan_delta(d, s, rows, count, head, column, out, n);
}

static void scan_delta_unit(Worker *worker, const Block *block, int64_t index, int64_t head,
                            int64_t column) {
    const Pass *pass = worker->pass;
    const DeltaNet *d = block->details;
    int64_t depth = d->keys.width, width = d->values.width, columns = columns_per_unit(width);
    int64_t count = pass->sequences[index].rows, first = pass->first_row[index];
    float *state = state_of(pass, block, index) + convolution_state(&d->convolution) +
                   head * depth * width + column;
    Columns s = take_columns(worker, state, width, depth, columns, count);
    const float *rows = pass->inner + first * delta_row(d);
    float *out = pass->mixed + first * d->values.count * width + head * width + column;
    switch (columns / LANES) {
    case 4: scan_delta_rule(d, &s, rows, count, head, column, out, 4); break;
    case 2: scan_delta_rule(d, &s, rows, count, head, column, out, 2); break;
    default: scan_delta_rule(d, &s, rows, count, head, column, out, 1);
    }
    put_columns_back(&s, state, width, columns);
}

/* Norm a head of a row of the result, and multiply it with silu or sigmoid of its gate. */
static void gate_delta_head(const Pass *pass, const DeltaNet *d, int64_t row, int64_t head) {
    int64_t width = d->values.width;
    float *out = pass->mixed + (row * d->values.count + head) * width;
    const float *gate = pass->wide + row * d->width + head_begin(&d->gates, head);
    norm_group(&d->norm, out, head);
    for (int64_t i = 0; i < width; i += LANES) {
        f32x16 z = load(gate + i);
        f32x16 factor = d->sigmoid_gates ? sigmoid(z) : z * sigmoid(z);
        store(out + i, load(out + i) * factor);
    }
}

/* The three loops between the linears. */
static void run_delta_rule(Worker *worker, const Block *block) {
    const Pass *pass = worker->pass;
    const DeltaNet *d = block->details;
    int64_t heads = d->keys.count, columns = columns_per_unit(d->values.width);
    loop_begin(&worker->cursor, pass->sequence_count * heads, 0);
    for (int64_t unit; (unit = loop_next(&worker->cursor)) >= 0;)
        prepare_delta_head(pass, block, unit % heads, unit / heads);
    barrier(&worker->cursor);
    heads = d->values.count;
    int64_t parts = d->values.width / columns;
    loop_begin(&worker->cursor, pass->sequence_count * heads * parts, 0);
    for (int64_t unit; (unit = loop_next(&worker->cursor)) >= 0;)
        scan_delta_unit(worker, block, unit / parts / heads, unit / parts % heads,
                        unit % parts * columns);
    barrier(&worker->cursor);
    loop_begin(&worker->cursor, pass->rows * heads, 1);
    for (int64_t unit; (unit = loop_next(&worker->cursor)) >= 0;)
        gate_delta_head(pass, d, unit / heads, unit % heads);
    barrier(&worker->cursor);
}

/* The pairs of linears: what the high ones give follows the outputs of the inputs in a row. */
static void run_pairs(Worker *worker, const Block *block) {
    const DeltaNet *d = block->details;
    const Pass *pass = worker->pass;
    float *low = pass->inner, *high = pass->wide + d->width;
    const Matrix *matrices = block->linear + block->inputs;
    for (int64_t i = 0; i < d->pairs; i++) {
        run_one_linear(worker, block, block->inputs + i, low, matrices[i].out);
        low += pass->rows * matrices[i].out, high -= matrices[d->pairs + i].out;
    }
    low = pass->inner;
    for (int64_t i = 0; i < d->pairs; i++) {
        prepare_input(worker, (Source){.kind = FROM_ROWS,
                                       .two_term = 1,
                                       .width = matrices[i].out,
                                       .rows = low});
        run_one_linear(worker, block, block->inputs + d->pairs + i, high, d->width);
        low += pass->rows * matrices[i].out, high += matrices[d->pairs + i].out;
    }
}

static void run_delta_net(Worker *worker, const Block *block) {
    const DeltaNet *d = block->details;
    run_inputs(worker, block, d->width);
    run_pairs(worker, block);
    run_delta_rule(worker, block);
    run_mixed_output(worker, block, block->linear_count - 1, d->values.count * d->values.width);
}
