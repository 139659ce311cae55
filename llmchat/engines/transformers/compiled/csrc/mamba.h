/* Mamba-2 (Dao & Gu 2024). */
#pragma once
#include "recurrence.h"

static int64_t mamba_inner(const Mamba *m) { return m->heads * m->width; }

/* A row of pass->wide: the gate, x, B and C, and dt of each head. */
static int64_t mamba_input(const Mamba *m) {
    return mamba_inner(m) + m->convolution.channels + m->heads;
}

/* A row of pass->inner: x, B and C after the convolution, then for each head its decay and its
 * time step. */
static int64_t mamba_row(const Mamba *m) { return m->convolution.channels + 2 * m->heads; }

static void find_time_steps(const Pass *pass, const Mamba *m, int64_t head, int64_t index) {
    int64_t first = pass->first_row[index], end = first + pass->sequences[index].rows;
    int64_t channels = m->convolution.channels, column = mamba_inner(m) + channels + head;
    for (int64_t row = first; row < end; row++) {
        float x = pass->wide[row * mamba_input(m) + column] * m->time_factor;
        float time = softplus(x + m->time_bias[head]);
        float *out = pass->inner + row * mamba_row(m) + channels;
        time = MIN(MAX(time, m->time_least), m->time_most);
        out[head] = expf(-m->rate[head] * time);
        out[m->heads + head] = time;
    }
}

static void convolve_channels(const Pass *pass, const Block *block, int64_t first, int64_t index) {
    const Mamba *m = block->details;
    int64_t row = pass->first_row[index], width = m->convolution.channels - first;
    convolve(&m->convolution, first, MIN(width, CHANNELS_PER_UNIT),
             pass->wide + row * mamba_input(m) + mamba_inner(m) + first, mamba_input(m),
             pass->sequences[index].rows, state_of(pass, block, index),
             pass->inner + row * mamba_row(m) + first, mamba_row(m));
}

INLINE void scan_mamba(const Mamba *m, const Columns *s, const float *rows, int64_t count,
                       int64_t head, int64_t column, float *out, const int n) {
    int64_t inner = mamba_inner(m), shared = m->groups * m->state;
    int64_t group = head / (m->heads / m->groups) * m->state;
    for (int64_t row = 0; row < count; row++, rows += mamba_row(m), out += inner) {
        const float *x = rows + head * m->width + column, *b = rows + inner + group;
        const float *decays = rows + m->convolution.channels;
        f32x16 added[MOST_VECTORS], result[MOST_VECTORS];
        for (int v = 0; v < n; v++) added[v] = load(x + v * LANES) * decays[m->heads + head];
        update_columns(s, decays[head], b, added, b + shared, result, n);
        for (int v = 0; v < n; v++)
            store(out + v * LANES,
                  fused_madd(splat(m->skip[head]), load(x + v * LANES), result[v]));
    }
}

static void scan_mamba_unit(Worker *worker, const Block *block, int64_t index, int64_t head,
                            int64_t column) {
    const Pass *pass = worker->pass;
    const Mamba *m = block->details;
    int64_t depth = m->state, width = m->width, columns = columns_per_unit(width);
    int64_t count = pass->sequences[index].rows, first = pass->first_row[index];
    float *state = state_of(pass, block, index) + convolution_state(&m->convolution) +
                   head * depth * width + column;
    Columns s = take_columns(worker, state, width, depth, columns, count);
    const float *rows = pass->inner + first * mamba_row(m);
    float *out = pass->mixed + first * mamba_inner(m) + head * width + column;
    switch (columns / LANES) {
    case 4: scan_mamba(m, &s, rows, count, head, column, out, 4); break;
    case 2: scan_mamba(m, &s, rows, count, head, column, out, 2); break;
    default: scan_mamba(m, &s, rows, count, head, column, out, 1);
    }
    put_columns_back(&s, state, width, columns);
}

static void multiply_gate(const Mamba *m, const float *gate, float *out, int64_t count) {
    for (int64_t i = 0; i < count; i += LANES) {
        f32x16 z = load(gate + i) * m->gate_factor;
        store(out + i, load(out + i) * (z * sigmoid(z)));
    }
}

/* Gate and norm group number `index` of a row of the result. */
static void finish_mamba_group(const Pass *pass, const Mamba *m, int64_t row, int64_t index) {
    int64_t count = m->norm.count ? m->norm.group : mamba_inner(m);
    float *out = pass->mixed + row * mamba_inner(m) + index * count;
    const float *gate = pass->wide + row * mamba_input(m) + index * count;
    if (!m->gate_after) multiply_gate(m, gate, out, count);
    if (m->norm.count) {
        int64_t first = m->norm.is_shared ? 0 : index * count;
        Moments moments = moments_of(&m->norm, out, count);
        apply_moments(&moments, out, m->norm.weight + first, NULL, 0, count, out);
    }
    if (m->gate_after) multiply_gate(m, gate, out, count);
}

static void run_mamba_scan(Worker *worker, const Block *block) {
    const Pass *pass = worker->pass;
    const Mamba *m = block->details;
    int64_t chunks = (m->convolution.channels + CHANNELS_PER_UNIT - 1) / CHANNELS_PER_UNIT;
    int64_t units = chunks + m->heads, columns = columns_per_unit(m->width);
    loop_begin(&worker->cursor, pass->sequence_count * units, 0);
    for (int64_t unit; (unit = loop_next(&worker->cursor)) >= 0;) {
        int64_t index = unit / units, part = unit % units;
        if (part < chunks)
            convolve_channels(pass, block, part * CHANNELS_PER_UNIT, index);
        else
            find_time_steps(pass, m, part - chunks, index);
    }
    barrier(&worker->cursor);
    int64_t parts = m->width / columns;
    loop_begin(&worker->cursor, pass->sequence_count * m->heads * parts, 0);
    for (int64_t unit; (unit = loop_next(&worker->cursor)) >= 0;)
        scan_mamba_unit(worker, block, unit / parts / m->heads, unit / parts % m->heads,
                        unit % parts * columns);
    barrier(&worker->cursor);
}

static void run_mamba(Worker *worker, const Block *block) {
    const Pass *pass = worker->pass;
    const Mamba *m = block->details;
    run_inputs(worker, block, mamba_input(m));
    run_mamba_scan(worker, block);
    int64_t groups = m->norm.count ? m->norm.count / m->norm.group : 1;
    loop_begin(&worker->cursor, pass->rows * groups, 1);
    for (int64_t unit; (unit = loop_next(&worker->cursor)) >= 0;)
        finish_mamba_group(pass, m, unit / groups, unit % groups);
    barrier(&worker->cursor);
    run_mixed_output(worker, block, block->inputs, mamba_inner(m));
}
