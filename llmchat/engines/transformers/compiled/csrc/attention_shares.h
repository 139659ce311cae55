/* How attention is divided into units of work: a unit is a block of rows of one sequence, one head
 * of keys, and either all spans that its rows see or, for few rows, one of them. */
#pragma once
#include "attention_kernel.h"
#include "model.h"

/* Up to so many rows of a sequence, its spans are attended to in parallel. */
#define SPLIT_ROWS 8
/* Units of work wanted for each thread: fewer leave a thread idle, more repeat work. */
#define UNITS_PER_THREAD 3

/* The units of a sequence in an attention block. A row and head has `states_per_head` states, the
 * first of which is for span `first_span`. */
typedef struct {
    int64_t units, blocks, rows_per_unit, first_state, states_per_head, first_span;
} AttentionShare;

static int64_t first_span_of(const Attention *a, const SequenceRows *sequence) {
    return first_seen(a, sequence->past) / SPAN;
}

/* Attention states of each row and head of a sequence: one, or one for each span. */
static int64_t states_per_head(const Attention *a, const SequenceRows *sequence) {
    int64_t spans = (held_positions(a, sequence) + SPAN - 1) / SPAN;
    return sequence->rows <= SPLIT_ROWS ? spans - first_span_of(a, sequence) : 1;
}

/* Numbers of all attention states of the sequences in a block. */
static int64_t state_numbers(const Attention *a, const SequenceRows *sequences, int64_t count) {
    int64_t states = 0;
    for (int64_t i = 0; i < count; i++)
        states += sequences[i].rows * a->queries.count * states_per_head(a, sequences + i);
    return states * (2 + a->values.width);
}

static int has_same_states(const Attention *a, const Attention *b) {
    return a->queries.count == b->queries.count && a->values.width == b->values.width &&
           a->window == b->window && a->chunk == b->chunk && a->sees == b->sees;
}

/* Rows of a sequence in one unit: as many as the memory is for, unless a thread would be idle. Six
 * queries go through a panel at once, so a unit has at least as many. */
static int64_t rows_per_unit(const Attention *a, const SequenceRows *sequence, int threads) {
    int64_t group = sharing_heads(a), heads = a->keys.count * states_per_head(a, sequence);
    int64_t blocks = (UNITS_PER_THREAD * threads + heads - 1) / heads;
    int64_t rows = (sequence->rows + blocks - 1) / blocks, least = MAX(1, 6 / group);
    return MIN(ROUND_UP(rows, least), MAX(1, QUERY_BLOCK / group / least * least));
}

/* shares: [count]. Returns the units of all sequences. */
static int64_t share_attention(const Attention *a, const SequenceRows *sequences, int64_t count,
                               int threads, AttentionShare *shares) {
    int64_t state = 0, units = 0;
    for (int64_t i = 0; i < count; i++) {
        const SequenceRows *sequence = sequences + i;
        AttentionShare *share = shares + i;
        share->states_per_head = states_per_head(a, sequence);
        share->rows_per_unit = rows_per_unit(a, sequence, threads);
        share->blocks = (sequence->rows + share->rows_per_unit - 1) / share->rows_per_unit;
        share->units = share->blocks * a->keys.count * share->states_per_head;
        share->first_state = state, share->first_span = first_span_of(a, sequence);
        state += sequence->rows * a->queries.count * share->states_per_head;
        units += share->units;
    }
    return units;
}
