/* Attention of a layer: rotary embedding, new keys and values into the caches, and the units of
 * work that attend to them.
 *
 * A unit is a block of rows of one sequence, one head of keys, and either all spans or, for few
 * rows, one span; merge_heads then puts the spans together. */
#pragma once
#include <math.h>

#include "layout.h"

/* Rotary embedding (Su et al. 2021) of x: [head_dim], in the half-split order of Hugging Face. */
static __attribute__((noinline)) void apply_rope(float *x, const float *cosine, const float *sine,
                                                 int64_t dim) {
    int64_t half = dim / 2, i = 0;
    for (; i + LANES <= half; i += LANES) {
        f32x16 a = load(x + i), b = load(x + half + i), c = load(cosine + i), s = load(sine + i);
        store(x + i, a * c - b * s);
        store(x + half + i, b * c + a * s);
    }
    for (; i < half; i++) {
        float a = x[i], b = x[half + i];
        x[i] = a * cosine[i] - b * sine[i];
        x[half + i] = b * cosine[i] + a * sine[i];
    }
}

/* Rotate queries and keys of a row where they are; write its keys and values into the cache. */
static void append_row(const Pass *pass, const SequenceRows *sequence, int64_t layer, int64_t row,
                       int64_t position) {
    const Model *m = pass->model;
    int64_t dim = m->head_dim, buffer = sequence->capacity * dim;
    float *query = pass->qkv + row * qkv_width(m);
    float *key = query + m->heads * dim, *value = key + m->kv_heads * dim;
    for (float *head = query; head < value; head += dim)
        apply_rope(head, pass->cosines + row * dim / 2, pass->sines + row * dim / 2, dim);
    for (int64_t head = 0; head < m->kv_heads; head++) {
        write_key(sequence->keys[layer] + head * buffer, position, key + head * dim, dim);
        write_value(sequence->values[layer] + head * buffer, position, value + head * dim, dim);
    }
}

/* Panels of keys that the new rows of a sequence belong to. */
static int64_t count_key_panels(const SequenceRows *sequence) {
    int64_t last = sequence->past + sequence->rows - 1;
    return last / LANES - sequence->past / LANES + 1;
}

/* A unit is the part of a sequence in one panel of keys, whose positions share cache lines. */
static void append_to_caches(Worker *worker, int64_t layer) {
    const Pass *pass = worker->pass;
    int64_t units = 0;
    for (int64_t i = 0; i < pass->sequence_count; i++)
        units += count_key_panels(pass->sequences + i);
    loop_begin(&worker->cursor, units, 1);
    for (int64_t unit; (unit = loop_next(&worker->cursor)) >= 0;) {
        int64_t index = 0;
        while (unit >= count_key_panels(pass->sequences + index))
            unit -= count_key_panels(pass->sequences + index++);
        const SequenceRows *sequence = pass->sequences + index;
        int64_t panel = sequence->past / LANES + unit;
        int64_t end = MIN(sequence->past + sequence->rows, (panel + 1) * LANES);
        for (int64_t at = MAX(sequence->past, panel * LANES); at < end; at++)
            append_row(pass, sequence, layer, pass->first_row[index] + at - sequence->past, at);
    }
    barrier(&worker->cursor);
}

/* Rows [first, first + count) of a sequence, one head of keys, spans [from, to). */
typedef struct {
    int64_t sequence, first, count, kv_head, from, to;
} AttentionUnit;

static AttentionUnit attention_unit(const Pass *pass, int64_t number) {
    AttentionUnit unit = {0};
    while (number >= pass->attention_units[unit.sequence])
        number -= pass->attention_units[unit.sequence++];
    const SequenceRows *sequence = pass->sequences + unit.sequence;
    int64_t per_head = states_per_head(sequence), rows = pass->rows_per_unit[unit.sequence];
    int64_t blocks = (sequence->rows + rows - 1) / rows;
    /* The rows of one head come one after the other: its keys and values are in the cache by then,
     * and the threads' shares are nearly equal. */
    unit.kv_head = number / per_head / blocks;
    unit.first = number / per_head % blocks * rows;
    unit.count = MIN(rows, sequence->rows - unit.first);
    unit.from = per_head > 1 ? number % per_head : 0;
    unit.to = per_head > 1 ? unit.from + 1 : pass->spans;
    return unit;
}

/* Convert the queries of a unit; find the state of each, and the positions it may see. */
static void collect_queries(const Worker *worker, const AttentionUnit *unit, int64_t *seen,
                            float **states) {
    const Pass *pass = worker->pass;
    const Model *m = pass->model;
    const SequenceRows *sequence = pass->sequences + unit->sequence;
    int64_t dim = m->head_dim, group = m->heads / m->kv_heads;
    for (int64_t query = 0; query < unit->count * group; query++) {
        int64_t in_sequence = unit->first + query / group;
        int64_t head = unit->kv_head * group + query % group;
        int64_t row = pass->first_row[unit->sequence] + in_sequence;
        const float *x = pass->qkv + row * qkv_width(m) + head * dim;
        half_t *target = worker->attention.queries + query * dim;
        for (int64_t d = 0; d < dim; d += LANES) store_half(target + d, load(x + d));
        seen[query] = sequence->past + in_sequence + 1;
        int64_t state = (in_sequence * m->heads + head) * states_per_head(sequence);
        states[query] = pass->states + (pass->first_state[unit->sequence] + state) * (2 + dim);
    }
}

static void run_attention_unit(Worker *worker, int64_t layer, const AttentionUnit *unit) {
    const Model *m = worker->pass->model;
    const SequenceRows *sequence = worker->pass->sequences + unit->sequence;
    const AttentionScratch *scratch = &worker->attention;
    int64_t dim = m->head_dim, queries = unit->count * (m->heads / m->kv_heads);
    int64_t seen[QUERY_BLOCK], end = sequence->past + unit->first + unit->count;
    float *states[QUERY_BLOCK], *tile_states[QUERY_TILE];
    int in_order = states_per_head(sequence) == 1;
    collect_queries(worker, unit, seen, states);
    for (int64_t span = unit->from; span < unit->to && span * SPAN < end; span++) {
        int64_t offset = (unit->kv_head * sequence->capacity + span * SPAN) * dim;
        const bf16 *cached_keys = sequence->keys[layer] + offset;
        const bf16 *cached_values = sequence->values[layer] + offset;
#ifdef USE_BF16
        const half_t *keys = cached_keys, *values = cached_values;
#else
        const half_t *keys = scratch->keys, *values = scratch->values;
        int64_t count = MIN(SPAN, end - span * SPAN);
        unzip_pairs(cached_keys, ROUND_UP(count, LANES) / LANES * dim / 2, scratch->keys);
        for (int64_t d = 0; d < dim; d += LANES)
            unzip_pairs(cached_values + d * SPAN, ROUND_UP(count, 2) / 2,
                        scratch->values + d * SPAN);
#endif
        for (int64_t query = 0; query < queries; query += QUERY_TILE) {
            int64_t some = MIN(QUERY_TILE, queries - query);
            for (int64_t i = 0; i < some; i++)
                tile_states[i] = states[query + i] + (in_order ? 0 : span * (2 + dim));
            attend_span(scratch, keys, values, scratch->queries + query * dim, some, seen + query,
                        dim, 1.0f / sqrtf((float)dim), span, tile_states, in_order);
        }
    }
}

static void run_attention(Worker *worker, int64_t layer) {
    const Pass *pass = worker->pass;
    int64_t units = 0;
    append_to_caches(worker, layer);
    for (int64_t i = 0; i < pass->sequence_count; i++) units += pass->attention_units[i];
    loop_begin(&worker->cursor, units, 0);
    for (int64_t number; (number = loop_next(&worker->cursor)) >= 0;) {
        AttentionUnit unit = attention_unit(pass, number);
        run_attention_unit(worker, layer, &unit);
    }
    barrier(&worker->cursor);
}
