/* An attention block: norms and rotary embedding of heads, new keys and values into the caches, and
 * the units of work that attend to them; merge_heads (prepare.h) puts their states together. */
#pragma once
#include "attention_span.h"
#include "prepare.h"

/* ---- the rotary embedding (Su et al. 2021) */

/* Of x: [2 * half], in the half-split order of Hugging Face. */
static __attribute__((noinline)) void rotate_halves(float *x, const float *cosine,
                                                    const float *sine, int64_t half) {
    int64_t i = 0;
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

/* The same where the numbers of a pair are neighbours. */
static __attribute__((noinline)) void rotate_neighbours(float *x, const float *cosine,
                                                        const float *sine, int64_t half) {
    for (int64_t i = 0; i < half; i++) {
        float a = x[2 * i], b = x[2 * i + 1];
        x[2 * i] = a * cosine[i] - b * sine[i];
        x[2 * i + 1] = b * cosine[i] + a * sine[i];
    }
}

/* Rotate heads of a row of the pass where they are. */
static void rotate_heads(const Pass *pass, int64_t rotary, int64_t row, float *x,
                         const Heads *heads) {
    if (rotary < 0) return;
    const Model *m = pass->model;
    const Rotary *r = m->rotary + rotary;
    int64_t at = row * pass->sizes.rotary_pairs;
    for (int64_t i = 0; i < rotary; i++) at += m->rotary[i].half;
    for (int64_t head = 0; head < heads->count; head++) {
        float *start = x + head_begin(heads, head) + r->first;
        (r->is_interleaved ? rotate_neighbours : rotate_halves)(start, pass->cosines + at,
                                                                pass->sines + at, r->half);
    }
}

/* ---- the caches */

static void clamp_row(float *x, int64_t count, float limit) {
    for (int64_t i = 0; i < count; i++) x[i] = MAX(-limit, MIN(limit, x[i]));
}

/* Norm and rotate heads of a row in the order of the block. */
static void turn_heads(const Pass *pass, const Attention *a, const Norm *norm, int64_t row,
                       float *x, const Heads *heads) {
    if (!a->norms_rotated) norm_heads(norm, x, heads);
    rotate_heads(pass, a->rotary, row, x, heads);
    rotate_heads(pass, a->second_rotary, row, x, heads);
    if (a->norms_rotated) norm_heads(norm, x, heads);
}

static void append_key(const SequenceRows *sequence, int64_t cache, int64_t head, int64_t position,
                       const float *key, int64_t dim) {
    int64_t bytes = sequence->capacity * cached_bytes(sequence->is_int8, dim);
    char *start = (char *)sequence->keys[cache] + head * bytes;
    if (sequence->is_int8)
        write_key8((uint8_t *)start, position, key, dim);
    else
        write_key((bf16 *)start, position, key, dim);
}

static void append_value(const SequenceRows *sequence, int64_t cache, int64_t head,
                         int64_t position, const float *value, int64_t dim) {
    int64_t bytes = sequence->capacity * cached_bytes(sequence->is_int8, dim);
    char *start = (char *)sequence->values[cache] + head * bytes;
    if (sequence->is_int8)
        write_value8((uint8_t *)start, position, value, dim);
    else
        write_value((bf16 *)start, position, value, dim);
}

/* Write the keys and values of a row into the cache. Values may lie where keys are: they are taken
 * first, into `stash`, [heads * width]. */
static void append_keys_and_values(const Pass *pass, const Attention *a,
                                   const SequenceRows *sequence, int64_t row, int64_t position,
                                   float *stash) {
    float *x = pass->wide + row * a->width;
    int64_t width = a->values.width;
    Heads packed = {a->values.count, width, 0, width, 1, width};
    for (int64_t head = 0; head < a->values.count; head++)
        memcpy(stash + head * width, x + head_begin(&a->values, head), width * sizeof *x);
    norm_heads(&a->value_norm, stash, &packed);
    for (int64_t head = 0; head < a->values.count; head++)
        append_value(sequence, a->cache, head, position, stash + head * width, width);
    turn_heads(pass, a, &a->key_norm, row, x, &a->keys);
    width = a->keys.width;
    for (int64_t head = 0; head < a->keys.count; head++)
        append_key(sequence, a->cache, head, position, x + head_begin(&a->keys, head), width);
}

/* Norm and rotate the heads of a row where they are; write its keys and values into the cache. */
static void append_row(Worker *worker, const Attention *a, const SequenceRows *sequence,
                       int64_t row, int64_t position) {
    const Pass *pass = worker->pass;
    float *x = pass->wide + row * a->width;
    if (a->clip) clamp_row(x, a->width, a->clip);
    turn_heads(pass, a, &a->query_norm, row, x, &a->queries);
    if (!a->shares) append_keys_and_values(pass, a, sequence, row, position, worker->value_row);
}

/* Panels of keys that the new rows of a sequence belong to. */
static int64_t count_key_panels(const SequenceRows *sequence) {
    int64_t last = sequence->past + sequence->rows - 1;
    return last / LANES - sequence->past / LANES + 1;
}

/* A unit is the part of a sequence in one panel of keys, whose positions share cache lines. */
static void append_to_caches(Worker *worker, const Attention *a) {
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
            append_row(worker, a, sequence, pass->first_row[index] + at - sequence->past, at);
    }
    barrier(&worker->cursor);
}

/* ---- attention */

/* Rows [first, first + count) of a sequence, one head of keys, spans [from, to). */
typedef struct {
    int64_t sequence, first, count, kv_head, from, to;
} AttentionUnit;

static AttentionUnit attention_unit(const Worker *worker, const Attention *a, int64_t number) {
    AttentionUnit unit = {0};
    while (number >= worker->shares[unit.sequence].units)
        number -= worker->shares[unit.sequence++].units;
    const SequenceRows *sequence = worker->pass->sequences + unit.sequence;
    const AttentionShare *share = worker->shares + unit.sequence;
    int64_t per_head = share->states_per_head, part = number / per_head;
    /* The rows of one head come one after the other: its keys and values are in the cache by then,
     * and the threads' shares are nearly equal. */
    unit.kv_head = part / share->blocks;
    unit.first = part % share->blocks * share->rows_per_unit;
    unit.count = MIN(share->rows_per_unit, sequence->rows - unit.first);
    unit.from = first_seen(a, sequence->past + unit.first) / SPAN;
    int64_t last = sequence->past + unit.first + unit.count - 1;
    unit.to = (seen_end(a, sequence, last) + SPAN - 1) / SPAN;
    if (sequence->rows <= SPLIT_ROWS) {
        unit.from = share->first_span + number % per_head;
        unit.to = unit.from + 1;
    }
    return unit;
}

/* The factor of the queries of a position. */
static float position_factor(const Attention *a, int64_t position) {
    if (!a->position_beta) return 1.0f;
    float steps = floorf((position + a->position_shift) / a->position_length);
    return 1.0f + a->position_beta * logf(1.0f + steps);
}

/* Convert query number `number` of a unit to the type in which keys are multiplied with it. */
static void place_query(const Worker *worker, const SequenceRows *sequence, int64_t number,
                        const float *x, int64_t dim, float factor) {
#ifdef USE_VNNI
    if (sequence->is_int8) {
        split_numbers(&worker->attention.queries8, number, x, factor, dim, CACHE_GROUP);
        return;
    }
#endif
    (void)sequence;
    half_t *target = worker->attention.queries + number * dim;
    for (int64_t d = 0; d < dim; d += LANES) store_half(target + d, load(x + d) * factor);
}

/* Convert queries [begin, begin + count) of a unit; find the state of each, and what it sees. */
static void collect_queries(const Worker *worker, const Attention *a, const AttentionUnit *unit,
                            int64_t begin, int64_t count, ScoreRules *rules, float **states) {
    const Pass *pass = worker->pass;
    const SequenceRows *sequence = pass->sequences + unit->sequence;
    const AttentionShare *share = worker->shares + unit->sequence;
    int64_t dim = a->queries.width, group = sharing_heads(a), size = 2 + a->values.width;
    for (int64_t i = 0; i < count; i++) {
        int64_t in_sequence = unit->first + (begin + i) / group;
        int64_t head = unit->kv_head * group + (begin + i) % group;
        int64_t position = sequence->past + in_sequence;
        rules->seen[i] = seen_end(a, sequence, position), rules->from[i] = first_seen(a, position);
        rules->positions[i] = position;
        rules->slopes[i] = a->slopes ? a->slopes[head] : 0.0f;
        if (a->distances) rules->distances[i] = a->distances + head * 2 * (a->reach + SPAN);
        int64_t row = in_sequence * a->queries.count + head;
        states[i] = pass->states + (share->first_state + row * share->states_per_head) * size;
        const float *x = pass->wide + (pass->first_row[unit->sequence] + in_sequence) * a->width +
                         head_begin(&a->queries, head);
        place_query(worker, sequence, begin + i, x, dim, position_factor(a, position));
    }
}

/* The first `count` keys and values of a span of one head, as products take them. */
static HeldSpan held_span(const Worker *worker, const Attention *a, const SequenceRows *sequence,
                          int64_t head, int64_t span, int64_t count) {
    int64_t dim = a->keys.width, value_dim = a->values.width, is_int8 = sequence->is_int8;
    int64_t first = head * capacity_of(a, sequence) + span * SPAN;
    const char *keys = sequence->keys[a->cache], *values = sequence->values[a->cache];
    HeldSpan held = {keys + first * cached_bytes(is_int8, dim),
                     values + first * cached_bytes(is_int8, value_dim), dim, value_dim, is_int8};
    unpack_span(&worker->attention, &held, count);
    return held;
}

static void run_attention_unit(Worker *worker, const Attention *a, const AttentionUnit *unit) {
    const SequenceRows *sequence = worker->pass->sequences + unit->sequence;
    const AttentionScratch *scratch = &worker->attention;
    const AttentionShare *share = worker->shares + unit->sequence;
    int64_t queries = unit->count * sharing_heads(a), tiles = 0;
    int64_t end = seen_end(a, sequence, sequence->past + unit->first + unit->count - 1);
    int in_order = sequence->rows > SPLIT_ROWS;
    ScoreRules rules[QUERY_BLOCK / QUERY_TILE + 1];
    float *states[QUERY_BLOCK], *tile_states[QUERY_TILE];
    for (int64_t query = 0; query < queries; query += QUERY_TILE, tiles++) {
        ScoreRules *rule = rules + tiles;
        rule->scale = a->scale, rule->softcap = a->softcap, rule->has_slopes = a->slopes != NULL;
        rule->is_windowed = a->window || a->chunk;
        rule->has_distances = a->distances != NULL, rule->reach = a->reach;
        collect_queries(worker, a, unit, query, MIN(QUERY_TILE, queries - query), rule,
                        states + query);
    }
    for (int64_t span = unit->from; span < unit->to && span * SPAN < end; span++) {
        HeldSpan held =
            held_span(worker, a, sequence, unit->kv_head, span, MIN(SPAN, end - span * SPAN));
        for (int64_t tile = 0; tile < tiles; tile++) {
            int64_t query = tile * QUERY_TILE, some = MIN(QUERY_TILE, queries - query);
            int64_t state = in_order ? 0 : (span - share->first_span) * (2 + a->values.width);
            for (int64_t i = 0; i < some; i++) tile_states[i] = states[query + i] + state;
            attend_span(scratch, &held, query, some, rules + tile, span, tile_states, in_order);
        }
    }
}

static void attend(Worker *worker, const Attention *a) {
    const Pass *pass = worker->pass;
    if (a->sees != SEES_MEMORY) append_to_caches(worker, a);
    int64_t units = share_attention(a, pass->sequences, pass->sequence_count,
                                    worker->cursor.threads, worker->shares);
    loop_begin(&worker->cursor, units, 0);
    for (int64_t number; (number = loop_next(&worker->cursor)) >= 0;) {
        AttentionUnit unit = attention_unit(worker, a, number);
        run_attention_unit(worker, a, &unit);
    }
    barrier(&worker->cursor);
}

/* Queries, keys and values of all rows: [R, width]. */
static void run_attention_inputs(Worker *worker, const Block *block) {
    const Attention *a = block->details;
    prepare_input(worker, block_input(worker, block));
    run_linears(worker, &(Linears){.matrices = block->linear,
                                   .linear = block->first_linear,
                                   .count = block->inputs,
                                   .epilogue = STORE,
                                   .out = worker->pass->wide,
                                   .stride = a->width});
}

/* Write the keys and values of an encoder's rows, which blocks of its decoder see. */
static void run_memory(Worker *worker, const Block *block) {
    run_attention_inputs(worker, block);
    append_to_caches(worker, block->details);
}

static void run_attention(Worker *worker, const Block *block) {
    const Attention *a = block->details;
    run_attention_inputs(worker, block);
    attend(worker, a);
    prepare_input(worker, (Source){.kind = FROM_ATTENTION,
                                   .width = a->queries.count * a->values.width,
                                   .attention = a,
                                   .order = block->linear[block->inputs].order});
    run_output(worker, block, block->inputs);
}
