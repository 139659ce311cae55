/* Where everything lies during a pass: one workspace, divided into memory that all threads share
 * and memory of each thread. The same functions measure the workspace and lay it out. */
#pragma once
#include "activations.h"
#include "attention_shares.h"
#include "expert_memory.h"
#include "grouped_panels.h"
#include "model.h"
#include "sizes.h"
#include "thread_team.h"

/* Up to so many rows, every thread quantises all activations: that is cheaper than a barrier. */
#define REDUNDANT_ROWS 2

/* One call of llmchat_step. [R] rows of all sequences, [W] those of them that want logits, [S]
 * sequences. */
typedef struct {
    const Model *model;
    const SequenceRows *sequences;
    Sizes sizes;
    int64_t sequence_count, rows, logit_count, ranks;
    int encodes;                /* the blocks of the encoder, without a head */
    int32_t *sequence_of;       /* [R] */
    int32_t *logit_rows;        /* [W] */
    int64_t *first_row;         /* [S] */
    int32_t *has_invalid;       /* [S] whether an embedding holds NaN or infinity */
    float *x;                   /* [R, hidden] residual stream */
    float *saved;               /* [R, hidden] what it was at the beginning of a stage */
    float *after;               /* [R, hidden] the result of a block before its post norm */
    float *unquantised;         /* [R, widest] input of the next product */
    float *wide, *inner;        /* [R, ...] queries, keys, values; act(gate) * up */
    float *mixed;               /* [R, ...] results of a recurrent block */
    float *layer_inputs;        /* [R, layers * width] */
    float *first_values;        /* [R, hidden] of the first block of RWKV-7 */
    float *streams;             /* [streams, R, hidden], see streams.h */
    float *cosines, *sines;     /* [R, rotary pairs] */
    float *states;              /* attention states, see merge_span */
    bf16 *lora_hidden;          /* [R, ranks]: scale * A x of the adapters */
    float *logits;              /* [W, vocabulary] */
    Activations acts, residual; /* residual: what quantisation rounded away, where it is used */
    Activations head_acts;      /* of latent attention, [heads][R, widest input] */
    bf16 *head_lora;            /* [R, heads, ranks] */
    ExpertMemory experts;
} Pass;

/* The state of one thread in a pass. `own_` memory is for up to REDUNDANT_ROWS rows. */
typedef struct {
    const Pass *pass;
    LoopCursor cursor, lora_cursor; /* lora_cursor: the loop that computes `lora_hidden` */
    Activations own_acts, own_residual;
    Activations acts, residual; /* the ones in use: own, or those of the pass */
    int two_term;               /* whether the product of the residual is added */
    float *own_unquantised;
    float *prepared;          /* where the input of the next product is computed, [rows, in] */
    const float *unquantised; /* the input itself: there, or rows that need no computation */
    float *residual_row;      /* the rounding errors of one row */
    float *ordered_row;       /* one row in the order of a matrix */
    float *product;           /* results of one panel */
    float *state;             /* see merge_span */
    float *value_row;         /* the values of one row */
    float *columns;           /* of a state */
    packed_t *panel;
    AttentionShare *shares; /* [S] of the block at hand */
    AttentionScratch attention;
    ExpertWorker experts;
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

#ifdef USE_VNNI
static SplitRows alloc_split_rows(Arena *arena, int64_t rows, int64_t depth, int64_t groups) {
    SplitRows split = {.bytes = arena_alloc(arena, rows * 2 * depth)};
    split.offsets = arena_alloc(arena, rows * groups * 2 * sizeof(int32_t));
    split.scale = alloc_floats(arena, rows);
    return split;
}
#endif

static Activations alloc_activations(Arena *arena, int64_t rows, int64_t widest_row) {
    int64_t width = ROUND_UP(widest_row, CACHE_LINE);
    Activations acts = {0};
    rows = ROUND_UP(rows, TILE_ROWS);
    acts.q = arena_alloc(arena, rows * width * sizeof(act_t));
    acts.scale = alloc_floats(arena, rows * width / GROUP);
    acts.term = alloc_floats(arena, rows * width / GROUP);
    acts.offset = arena_alloc(arena, rows * width / GROUP * sizeof(int32_t));
    acts.sum = arena_alloc(arena, 2 * rows * width / GROUP * sizeof(int32_t));
    return acts;
}

/* The same memory for `rows` rows of `in` numbers. */
static Activations with_shape(Activations acts, int64_t rows, int64_t in) {
    acts.rows = rows, acts.tile_rows = rows <= GEMV_MAX_ROWS ? 1 : TILE_ROWS;
    acts.in = in, acts.width = ROUND_UP(in, CACHE_LINE), acts.groups = acts.width / GROUP;
    return acts;
}

/* The activations that begin `q` numbers further on. */
static Activations moved_by(Activations acts, int64_t q) {
    acts.q += q, acts.scale += q / GROUP, acts.term += q / GROUP;
    acts.offset += q / GROUP, acts.sum += q / GROUP * 2;
    return acts;
}

/* Ranks of all adapters of a sequence, over `count` linears that share their input. */
static int64_t ranks_of(const SequenceRows *sequence, int64_t linear, int64_t count) {
    int64_t ranks = 0;
    for (int64_t l = linear; l < linear + count; l++)
        for (int64_t a = 0; a < sequence->adapter_count; a++)
            ranks += sequence->adapters[a][l].rank;
    return ranks;
}

/* The same within a mixture of experts. */
static int64_t most_ranks_of_experts(const Block *block, const SequenceRows *sequence) {
    const Experts *e = block->details;
    int64_t ranks = 0, linear = block->first_linear, last = linear + block->linear_count;
    for (int64_t inputs = e->shared_inner ? e->shared_inputs : e->inputs; linear < last;
         linear += inputs + 1, inputs = e->inputs) {
        ranks = MAX(ranks, ranks_of(sequence, linear, inputs));
        ranks = MAX(ranks, ranks_of(sequence, linear + inputs, 1));
    }
    return ranks;
}

/* The most ranks that linears with a shared input have in any block. */
static int64_t most_ranks(const Model *m, const SequenceRows *sequence) {
    if (!sequence->adapter_count) return 0;
    int64_t ranks = ranks_of(sequence, m->linears, 1);
    if (m->layer_inputs) ranks = MAX(ranks, ranks_of(sequence, m->linears - 1, 1));
    for (int64_t i = 0; i < m->blocks; i++) {
        const Block *block = m->block + i;
        if (block->kind == EXPERTS) {
            ranks = MAX(ranks, most_ranks_of_experts(block, sequence));
            continue;
        }
        ranks = MAX(ranks, ranks_of(sequence, block->first_linear, block->inputs));
        for (int64_t l = block->inputs; l < block->linear_count; l++)
            ranks = MAX(ranks, ranks_of(sequence, block->first_linear + l, 1));
    }
    return ranks;
}

/* ---- the layout */

static void count_rows(Pass *pass) {
    pass->sizes = sizes_of(pass->model);
    pass->rows = pass->logit_count = pass->ranks = 0;
    for (int64_t i = 0; i < pass->sequence_count; i++) {
        const SequenceRows *sequence = pass->sequences + i;
        pass->rows += sequence->rows;
        pass->logit_count += sequence->all_logits ? sequence->rows : 1;
        pass->ranks = MAX(pass->ranks, most_ranks(pass->model, sequence));
    }
}

/* Numbers of all attention states of the block that has the most of them. */
static int64_t most_states(const Pass *pass) {
    int64_t most = 0;
    const Attention *before = NULL;
    for (int64_t i = 0; i < pass->model->blocks; i++) {
        const Block *block = pass->model->block + i;
        const Attention *a = attention_of(block);
        if (!a) continue;
        if (!before || !has_same_states(a, before))
            most = MAX(most, state_numbers(a, pass->sequences, pass->sequence_count));
        before = a;
    }
    return most;
}

/* The most places that the chosen experts of all rows can take: each begins with a whole tile. */
static int64_t most_places(const Pass *pass) {
    int64_t slots = pass->rows * pass->sizes.top;
    return slots + (MIN(slots, pass->sizes.experts) + 1) * TILE_ROWS;
}

static void lay_out_experts(Pass *pass, Arena *arena) {
    const Sizes *sizes = &pass->sizes;
    ExpertMemory *memory = &pass->experts;
    if (!sizes->experts) return;
    int64_t rows = pass->rows, hidden = pass->model->hidden, places = most_places(pass);
    int64_t shared = sizes->shared_inner ? ROUND_UP(rows, TILE_ROWS) : 0;
    int64_t inner = places * ROUND_UP(sizes->expert_inner, CACHE_LINE) +
                    shared * ROUND_UP(sizes->shared_inner, CACHE_LINE);
    memory->logits = alloc_floats(arena, rows * sizes->experts);
    memory->chosen =
        arena_alloc(arena, pass->model->blocks * rows * sizes->top * sizeof(int32_t));
    memory->weights = alloc_floats(arena, rows * sizes->top);
    memory->shared = alloc_floats(arena, rows);
    memory->inner = alloc_floats(arena, inner);
    memory->results = alloc_floats(arena, (places + shared) * hidden);
    memory->router_rows = alloc_floats(arena, rows * sizes->normed);
    memory->expert_rows = alloc_floats(arena, rows * sizes->normed);
    memory->lora_hidden = arena_alloc(arena, (places + shared) * pass->ranks * sizeof(bf16));
    memory->input = alloc_activations(arena, places, hidden);
    /* One row, as wide as all of them together. */
    memory->acts = alloc_activations(arena, 1, inner);
    memory->residual = alloc_activations(arena, 1, inner);
}

static void lay_out_expert_worker(const Pass *pass, ExpertWorker *experts, Arena *arena) {
    const Sizes *sizes = &pass->sizes;
    if (!sizes->experts) return;
    int64_t rows = pass->rows, places = most_places(pass) + ROUND_UP(rows, TILE_ROWS);
    experts->groups = arena_alloc(arena, (sizes->experts + 1) * sizeof(ExpertGroup));
    experts->counts = arena_alloc(arena, sizes->experts * sizeof(int32_t));
    experts->place_of = arena_alloc(arena, rows * sizes->top * sizeof(int32_t));
    experts->row_of = arena_alloc(arena, places * sizeof(int32_t));
    experts->slot_of = arena_alloc(arena, places * sizeof(int32_t));
    experts->scores = alloc_floats(arena, 3 * sizes->experts);
    experts->taken = arena_alloc(arena, sizes->experts);
    experts->weighted_row = alloc_floats(arena, pass->model->hidden);
}

static void lay_out_shared(Pass *pass, Arena *arena) {
    const Model *m = pass->model;
    count_rows(pass);
    const Sizes *sizes = &pass->sizes;
    int64_t rows = pass->rows, count = pass->sequence_count, least = MAX(rows, TILE_ROWS);
    pass->sequence_of = arena_alloc(arena, rows * sizeof(int32_t));
    pass->logit_rows = arena_alloc(arena, pass->logit_count * sizeof(int32_t));
    pass->first_row = arena_alloc(arena, count * sizeof(int64_t));
    pass->has_invalid = arena_alloc(arena, count * sizeof(int32_t));
    pass->x = alloc_floats(arena, rows * m->hidden);
    pass->saved = alloc_floats(arena, rows * m->hidden);
    pass->after = alloc_floats(arena, rows * m->hidden);
    pass->unquantised = alloc_floats(arena, rows * MAX(m->hidden, sizes->values));
    pass->wide = alloc_floats(arena, rows * sizes->wide);
    pass->inner = alloc_floats(arena, rows * sizes->inner);
    pass->mixed = alloc_floats(arena, rows * sizes->mixed);
    pass->first_values = alloc_floats(arena, rows * sizes->first_values);
    pass->layer_inputs = alloc_floats(arena, rows * sizes->layer_inputs);
    pass->streams = alloc_floats(arena, sizes->streams * rows * m->hidden);
    pass->cosines = alloc_floats(arena, rows * sizes->rotary_pairs);
    pass->sines = alloc_floats(arena, rows * sizes->rotary_pairs);
    pass->states = alloc_floats(arena, most_states(pass));
    pass->lora_hidden = arena_alloc(arena, rows * pass->ranks * sizeof(bf16));
    pass->acts = alloc_activations(arena, least, sizes->input);
    pass->residual = alloc_activations(arena, least, sizes->two_term);
    pass->head_acts =
        alloc_activations(arena, sizes->heads * ROUND_UP(rows, TILE_ROWS), sizes->head_input);
    pass->head_lora = arena_alloc(arena, rows * sizes->heads * pass->ranks * sizeof(bf16));
    lay_out_experts(pass, arena);
}

static void lay_out_worker(Worker *worker, Arena *arena) {
    const Sizes *sizes = &worker->pass->sizes;
    int64_t own_rows = MAX(REDUNDANT_ROWS, TILE_ROWS), rows = MAX(worker->pass->rows, TILE_ROWS);
    worker->own_acts = alloc_activations(arena, own_rows, sizes->input);
    worker->own_residual = alloc_activations(arena, own_rows, sizes->two_term);
    worker->residual_row = alloc_floats(arena, ROUND_UP(sizes->two_term, CACHE_LINE));
    worker->own_unquantised = alloc_floats(arena, REDUNDANT_ROWS * sizes->input);
    worker->ordered_row = alloc_floats(arena, sizes->input);
    worker->product = alloc_floats(arena, 2 * rows * PANEL_COLUMNS);
    worker->panel = arena_alloc(arena, PANEL_BYTES);
    worker->state = alloc_floats(arena, 2 + sizes->value);
    worker->value_row = alloc_floats(arena, sizes->value_row);
    worker->columns = alloc_floats(arena, sizes->columns);
    worker->shares = arena_alloc(arena, worker->pass->sequence_count * sizeof(AttentionShare));
#ifndef USE_BF16
    worker->attention.keys = alloc_halves(arena, SPAN * sizes->keys);
    worker->attention.values = alloc_halves(arena, SPAN * sizes->value);
#endif
#ifdef USE_VNNI
    worker->attention.queries8 =
        alloc_split_rows(arena, QUERY_BLOCK, sizes->keys, cache_groups(sizes->keys));
    worker->attention.weights8 = alloc_split_rows(arena, QUERY_TILE, SPAN, 1);
#endif
    worker->attention.queries = alloc_halves(arena, QUERY_BLOCK * sizes->keys);
    worker->attention.probabilities = alloc_halves(arena, QUERY_TILE * SPAN);
    worker->attention.scores = alloc_floats(arena, QUERY_TILE * SPAN);
    worker->attention.sums = alloc_floats(arena, QUERY_TILE * sizes->value);
    lay_out_expert_worker(worker->pass, &worker->experts, arena);
}

/* Number the rows of a pass whose memory is laid out. */
static void number_rows(Pass *pass) {
    int64_t row = 0, logit = 0;
    for (int64_t i = 0; i < pass->sequence_count; i++) {
        const SequenceRows *sequence = pass->sequences + i;
        pass->first_row[i] = row, pass->has_invalid[i] = 0;
        for (int64_t k = 0; k < sequence->rows; k++, row++) {
            pass->sequence_of[row] = i;
            if (sequence->all_logits || k + 1 == sequence->rows) pass->logit_rows[logit++] = row;
        }
    }
}
