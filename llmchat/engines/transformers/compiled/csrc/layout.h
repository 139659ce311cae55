/* Where everything lies during a pass: one workspace, divided into memory that all threads share
 * and memory of each thread. The same functions measure the workspace and lay it out. */
#pragma once
#include "activations.h"
#include "model.h"
#include "products.h"
#include "thread_team.h"

/* Up to so many rows, every thread quantises all activations: that is cheaper than a barrier. */
#define REDUNDANT_ROWS 2
/* Up to so many rows of a sequence, its spans are attended to in parallel. */
#define SPLIT_ROWS 8
/* Units of work wanted for each thread: fewer leave a thread idle, more repeat work. */
#define UNITS_PER_THREAD 3

/* One call of llmchat_step. [R] rows of all sequences, [W] those of them that want logits, [S]
 * sequences. */
typedef struct {
    const Model *model;
    const SequenceRows *sequences;
    int64_t sequence_count, rows, logit_count, ranks, spans;
    int32_t *sequence_of;       /* [R] */
    int32_t *logit_rows;        /* [W] */
    int64_t *first_row;         /* [S] */
    int64_t *first_state;       /* [S] in `states` */
    int64_t *attention_units;   /* [S] units of work */
    int64_t *rows_per_unit;     /* [S] rows in one of them */
    int32_t *has_invalid;       /* [S] whether an embedding holds NaN or infinity */
    float *x;                   /* [R, hidden] residual stream */
    float *unquantised;         /* [R, hidden or heads * head_dim] input of the next product */
    float *qkv, *inner;         /* [R, ...] queries, keys, values; silu(gate) * up */
    float *cosines, *sines;     /* [R, head_dim / 2] */
    float *states;              /* attention states, see merge_span */
    bf16 *lora_hidden;          /* [R, ranks]: scale * A x of the adapters */
    float *logits;              /* [W, vocabulary] */
    Activations acts, residual; /* residual: what quantisation rounded away, where it is used */
} Pass;

/* The state of one thread in a pass. `own_` memory is for up to REDUNDANT_ROWS rows. */
typedef struct {
    const Pass *pass;
    LoopCursor cursor, lora_cursor; /* lora_cursor: the loop that computes `lora_hidden` */
    Activations own_acts, own_residual;
    Activations acts, residual; /* the ones in use: own, or those of the pass */
    int two_term;               /* whether the product of the residual is added */
    float *own_unquantised, *unquantised;
    float *residual_row; /* the rounding errors of one row */
    float *product;      /* results of one panel */
    float *state;        /* see merge_span */
    packed_t *panel;
    AttentionScratch attention;
} Worker;

/* ---- the arena */

/* A region to allocate from. With base NULL it only counts the bytes. */
typedef struct {
    char *base;
    int64_t used;
} Arena;

static void *arena_alloc(Arena *arena, int64_t bytes) {
    void *start = arena->base ? arena->base + arena->used : NULL;
    arena->used += ROUND_UP(bytes, 64) + ARENA_GAP;
    if (start) UNPOISON(start, bytes);
    return start;
}

static float *alloc_floats(Arena *arena, int64_t count) {
    return arena_alloc(arena, count * sizeof(float));
}

static half_t *alloc_halves(Arena *arena, int64_t count) {
    return arena_alloc(arena, count * sizeof(half_t));
}

static Activations alloc_activations(Arena *arena, int64_t rows, int64_t widest_row) {
    int64_t width = ROUND_UP(widest_row, CACHE_LINE);
    Activations acts = {0};
    rows = ROUND_UP(rows, TILE_ROWS);
    acts.q = arena_alloc(arena, rows * width * sizeof(act_t));
    acts.scale = alloc_floats(arena, rows * width / GROUP);
    acts.offset = arena_alloc(arena, rows * width / GROUP * sizeof(int32_t));
    return acts;
}

/* The same memory for `rows` rows of `in` numbers. */
static Activations with_shape(Activations acts, int64_t rows, int64_t in) {
    acts.rows = rows, acts.tile_rows = rows <= GEMV_MAX_ROWS ? 1 : TILE_ROWS;
    acts.in = in, acts.width = ROUND_UP(in, CACHE_LINE), acts.groups = acts.width / GROUP;
    return acts;
}

/* ---- sizes */

static int64_t widest_input(const Model *m) {
    return MAX(MAX(m->hidden, m->inner), m->heads * m->head_dim);
}

static int64_t qkv_width(const Model *m) { return (m->heads + 2 * m->kv_heads) * m->head_dim; }

static int64_t spans_of(const SequenceRows *sequence) {
    return (sequence->past + sequence->rows + SPAN - 1) / SPAN;
}

/* Attention states of each row and head of a sequence: one, or one for each span. */
static int64_t states_per_head(const SequenceRows *sequence) {
    return sequence->rows <= SPLIT_ROWS ? spans_of(sequence) : 1;
}

/* Ranks of all adapters of a sequence, over `count` linears that share their input. */
static int64_t ranks_of(const SequenceRows *sequence, int64_t linear, int64_t count) {
    int64_t ranks = 0;
    for (int64_t l = linear; l < linear + count; l++)
        for (int64_t a = 0; a < sequence->adapter_count; a++)
            ranks += sequence->adapters[a][l].rank;
    return ranks;
}

/* The most ranks that linears with a shared input have in any layer. */
static int64_t most_ranks(const Model *m, const SequenceRows *sequence) {
    int64_t ranks = ranks_of(sequence, m->layers * LINEARS, 1);
    for (int64_t layer = 0; layer < m->layers; layer++) {
        int64_t first = layer * LINEARS;
        ranks = MAX(ranks, ranks_of(sequence, first + Q_PROJ, 3));
        ranks = MAX(ranks, ranks_of(sequence, first + O_PROJ, 1));
        ranks = MAX(ranks, ranks_of(sequence, first + GATE_PROJ, 2));
        ranks = MAX(ranks, ranks_of(sequence, first + DOWN_PROJ, 1));
    }
    return ranks;
}

/* Rows of a sequence in one unit of attention: as many as the memory is for, unless a thread would
 * be idle. Six queries go through a panel at once, so a unit has at least as many. */
static int64_t attention_rows(const Model *m, const SequenceRows *sequence, int threads) {
    int64_t group = m->heads / m->kv_heads, heads = m->kv_heads * states_per_head(sequence);
    int64_t blocks = (UNITS_PER_THREAD * threads + heads - 1) / heads;
    int64_t rows = (sequence->rows + blocks - 1) / blocks, least = MAX(1, 6 / group);
    return MIN(ROUND_UP(rows, least), MAX(1, QUERY_BLOCK / group / least * least));
}

/* ---- the layout */

static int64_t count_rows(Pass *pass) {
    const Model *m = pass->model;
    int64_t states = 0;
    pass->rows = pass->logit_count = pass->ranks = pass->spans = 0;
    for (int64_t i = 0; i < pass->sequence_count; i++) {
        const SequenceRows *sequence = pass->sequences + i;
        pass->rows += sequence->rows;
        pass->logit_count += sequence->all_logits ? sequence->rows : 1;
        pass->spans = MAX(pass->spans, spans_of(sequence));
        pass->ranks = MAX(pass->ranks, most_ranks(m, sequence));
        states += sequence->rows * m->heads * states_per_head(sequence);
    }
    return states;
}

static void lay_out_shared(Pass *pass, Arena *arena) {
    const Model *m = pass->model;
    int64_t states = count_rows(pass), rows = pass->rows, count = pass->sequence_count;
    int64_t half = m->head_dim / 2, heads_width = m->heads * m->head_dim;
    pass->sequence_of = arena_alloc(arena, rows * sizeof(int32_t));
    pass->logit_rows = arena_alloc(arena, pass->logit_count * sizeof(int32_t));
    pass->first_row = arena_alloc(arena, count * sizeof(int64_t));
    pass->first_state = arena_alloc(arena, count * sizeof(int64_t));
    pass->attention_units = arena_alloc(arena, count * sizeof(int64_t));
    pass->rows_per_unit = arena_alloc(arena, count * sizeof(int64_t));
    pass->has_invalid = arena_alloc(arena, count * sizeof(int32_t));
    pass->x = alloc_floats(arena, rows * m->hidden);
    pass->unquantised = alloc_floats(arena, rows * MAX(m->hidden, heads_width));
    pass->qkv = alloc_floats(arena, rows * qkv_width(m));
    pass->inner = alloc_floats(arena, rows * m->inner);
    pass->cosines = alloc_floats(arena, rows * half);
    pass->sines = alloc_floats(arena, rows * half);
    pass->states = alloc_floats(arena, states * (2 + m->head_dim));
    pass->lora_hidden = arena_alloc(arena, rows * pass->ranks * sizeof(bf16));
    pass->acts = alloc_activations(arena, MAX(rows, TILE_ROWS), widest_input(m));
    pass->residual = alloc_activations(arena, MAX(rows, TILE_ROWS), MAX(m->hidden, m->inner));
}

static void lay_out_worker(Worker *worker, Arena *arena) {
    const Model *m = worker->pass->model;
    int64_t dim = m->head_dim, own_rows = MAX(REDUNDANT_ROWS, TILE_ROWS);
    int64_t two_term_width = MAX(m->hidden, m->inner), rows = MAX(worker->pass->rows, TILE_ROWS);
    worker->own_acts = alloc_activations(arena, own_rows, widest_input(m));
    worker->own_residual = alloc_activations(arena, own_rows, two_term_width);
    worker->residual_row = alloc_floats(arena, ROUND_UP(two_term_width, CACHE_LINE));
    worker->own_unquantised = alloc_floats(arena, REDUNDANT_ROWS * widest_input(m));
    worker->product = alloc_floats(arena, 2 * rows * PANEL_COLUMNS);
    worker->panel = arena_alloc(arena, PANEL_DEPTH * PANEL_COLUMNS * sizeof(packed_t));
    worker->state = alloc_floats(arena, 2 + dim);
#ifndef USE_BF16
    worker->attention.keys = alloc_halves(arena, SPAN * dim);
    worker->attention.values = alloc_halves(arena, SPAN * dim);
#endif
    worker->attention.queries = alloc_halves(arena, QUERY_BLOCK * dim);
    worker->attention.probabilities = alloc_halves(arena, QUERY_TILE * SPAN);
    worker->attention.scores = alloc_floats(arena, QUERY_TILE * SPAN);
    worker->attention.sums = alloc_floats(arena, QUERY_TILE * dim);
}

/* Number the rows and the units of work of a pass whose memory is laid out. */
static void number_rows(Pass *pass, int threads) {
    const Model *m = pass->model;
    int64_t row = 0, logit = 0, states = 0;
    for (int64_t i = 0; i < pass->sequence_count; i++) {
        const SequenceRows *sequence = pass->sequences + i;
        int64_t per_unit = attention_rows(m, sequence, threads);
        int64_t blocks = (sequence->rows + per_unit - 1) / per_unit;
        pass->first_row[i] = row, pass->first_state[i] = states, pass->has_invalid[i] = 0;
        pass->rows_per_unit[i] = per_unit;
        pass->attention_units[i] = blocks * m->kv_heads * states_per_head(sequence);
        states += sequence->rows * m->heads * states_per_head(sequence);
        for (int64_t k = 0; k < sequence->rows; k++, row++) {
            pass->sequence_of[row] = i;
            if (sequence->all_logits || k + 1 == sequence->rows) pass->logit_rows[logit++] = row;
        }
    }
}
