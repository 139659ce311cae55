/* One pass of a Llama-like model over the new tokens of any number of texts, on the CPU, with row-wise int8 weights.
 *
 * Row invariance: the numbers of a token do not depend, to the bit, on what is read in the same call. Every sum is taken in an order that
 * follows from the token's own position alone. So a cached prefix equals a fresh read, a draft equals plain decoding, and a text among others
 * equals the text alone. */
#include <math.h>
#include <stddef.h>
#include <stdlib.h>

#include "checked.h"
#include "products.h"
#include "attention.h"
#include "choice.h"
#include "team.h"

#define LINEARS 7
#define ALONE 2       /* rows up to which every thread prepares the activations for itself: cheaper than to wait for the others */
#define SPLIT_ROWS 8 /* rows of a text up to which its spans are attended to side by side */
#define UNITS 3       /* of attention and of activations, wanted for each thread: fewer leave one without work, more do things twice */
#define RANKS 16       /* of an adapter, in one unit of work */
#define LOW_AHEAD 2048 /* numbers of A that are asked for before they are used */

enum { Q, K, V, O, GATE, UP_, DOWN };
enum { STORE, ADD, GATED }; /* what becomes of a product */

typedef struct {
    const int8_t *weight; /* [out, in] */
    const float *scale;   /* [out], padded to 32: a weight is int8 * scale */
    const float *bias;    /* the same, or NULL */
    int64_t out, in;
} Matrix;

typedef struct {
    const float *attention_norm, *mlp_norm; /* [hidden] */
    Matrix linear[LINEARS];
} Layer;

typedef struct {
    int64_t layers, hidden, heads, kv_heads, head_dim, inner, vocabulary;
    const bf16 *embedding; /* [vocabulary, hidden] */
    const float *frequencies, *norm;
    const Layer *layer;
    Matrix head;
    float eps;
} Model;

typedef struct {
    const bf16 *a, *b; /* [rank, in], and [out / 16, rank / 2, 16, 2]: B as products take it, its outputs padded to 32 */
    int64_t rank;      /* even: perhaps with zeros */
    float scale;
} Lora;

typedef struct {
    const int32_t *ids;
    bf16 *const *keys, *const *values; /* a layer each: [kv_heads, capacity, head_dim] as attention.h has it */
    const Lora *const *adapters;       /* each [layers * LINEARS + 1], the head last; rank 0 where it changes nothing */
    const float *strengths;
    int64_t rows, past, capacity, adapter_count, every;
} Text;

/* Where everything lies. [R] rows of all texts, [W] those that want logits. */
typedef struct {
    const Model *model;
    const Text *texts;
    int64_t text_count, rows, wanted, ranks, spans;
    int32_t *text_of, *wants;         /* [R], [W] */
    int64_t *first_of, *states_of;    /* [texts] first row; first state */
    int64_t *units_of, *together;     /* [texts] units of attention; rows in one of them */
    int32_t *spoilt;                  /* [texts] whether it read an embedding that is no number */
    float *x, *plain, *qkv, *inner;   /* residual stream; what was quantised; q, k, v; silu(gate) * up */
    float *cosines, *sines, *states;  /* [R, head_dim / 2]; attention */
    bf16 *low;                        /* [R, ranks]: A x of the adapters, scaled */
    float *logits;                    /* [W, vocabulary] */
    Acts acts, rest;                  /* rest: what rounding took away, where it is added again (see fine) */
} Plan;

typedef struct {
    const Plan *plan;
    Worker worker;
    Acts own, acts; /* room for a few rows; the rows in use, own or the plan's */
    Acts own_rest, rest;
    int fine;       /* the rows in use have 16 bits: the product of the rest is added */
    float *plain;   /* the fp32 numbers behind them */
    float *own_plain, *lost, *product, *state;
    Worker lowering; /* where A x of the adapters is being made */
    Packed *panel;
    Attention attention;
} Thread;

/* ---- room */

typedef struct {
    char *base;
    int64_t used;
} Room;

static void *room(Room *from, int64_t bytes) {
    void *at = from->base ? from->base + from->used : NULL;
    from->used += UP(bytes, 64) + GAP;
    if (at) OPEN(at, bytes);
    return at;
}

static int64_t widest(const Model *model) { return MAX(MAX(model->hidden, model->inner), model->heads * model->head_dim); }
static int64_t spans_of(const Text *text) { return (text->past + text->rows + SPAN - 1) / SPAN; }
static int64_t slots_of(const Text *text) { return text->rows <= SPLIT_ROWS ? spans_of(text) : 1; }

/* Ranks of all adapters of a text in `count` linears that share their activations. */
static int64_t ranks_of(const Text *text, int64_t linear, int64_t count) {
    int64_t ranks = 0;
    for (int64_t l = linear; l < linear + count; l++)
        for (int64_t a = 0; a < text->adapter_count; a++) ranks += text->adapters[a][l].rank;
    return ranks;
}

/* Rows of a text in one unit of attention: all that there is room for, unless threads would go without work. Six queries go through a panel at once. */
static int64_t rows_together(const Model *m, const Text *text, int threads) {
    int64_t group = m->heads / m->kv_heads, heads = m->kv_heads * slots_of(text), blocks = (UNITS * threads + heads - 1) / heads;
    int64_t rows = (text->rows + blocks - 1) / blocks, least = MAX(1, 6 / group);
    return MIN(UP(rows, least), MAX(1, BLOCK / group / least * least));
}

static Acts make_acts(Room *from, int64_t rows, int64_t widest_row) {
    int64_t width = UP(widest_row, WIDE);
    Acts acts = {0};
    rows = UP(rows, TILE);
    acts.q = room(from, rows * width * sizeof(Act));
    acts.scale = room(from, rows * width / GROUP * sizeof(float));
    acts.offset = room(from, rows * width / GROUP * sizeof(int32_t));
    return acts;
}

static Acts of_size(Acts acts, int64_t rows, int64_t in) {
    acts.rows = rows, acts.height = rows <= DIRECT_ROWS ? 1 : TILE;
    acts.in = in, acts.width = UP(in, WIDE), acts.groups = acts.width / GROUP;
    return acts;
}

static void lay_out(Plan *plan, Room *from) {
    const Model *m = plan->model;
    int64_t states = 0;
    plan->rows = plan->wanted = plan->ranks = plan->spans = 0;
    for (int64_t i = 0; i < plan->text_count; i++) {
        const Text *text = plan->texts + i;
        plan->rows += text->rows;
        plan->wanted += text->every ? text->rows : 1;
        plan->spans = MAX(plan->spans, spans_of(text));
        states += text->rows * m->heads * slots_of(text);
        for (int64_t layer = 0; layer < m->layers; layer++) {
            plan->ranks = MAX(plan->ranks, ranks_of(text, layer * LINEARS + Q, 3));
            plan->ranks = MAX(plan->ranks, ranks_of(text, layer * LINEARS + O, 1));
            plan->ranks = MAX(plan->ranks, ranks_of(text, layer * LINEARS + GATE, 2));
            plan->ranks = MAX(plan->ranks, ranks_of(text, layer * LINEARS + DOWN, 1));
        }
        plan->ranks = MAX(plan->ranks, ranks_of(text, m->layers * LINEARS, 1));
    }
    int64_t rows = plan->rows, half = m->head_dim / 2, wide = widest(m);
    plan->text_of = room(from, rows * sizeof(int32_t));
    plan->wants = room(from, plan->wanted * sizeof(int32_t));
    plan->first_of = room(from, plan->text_count * sizeof(int64_t));
    plan->states_of = room(from, plan->text_count * sizeof(int64_t));
    plan->units_of = room(from, plan->text_count * sizeof(int64_t));
    plan->together = room(from, plan->text_count * sizeof(int64_t));
    plan->spoilt = room(from, plan->text_count * sizeof(int32_t));
    plan->x = room(from, rows * m->hidden * sizeof(float));
    plan->plain = room(from, rows * MAX(m->hidden, m->heads * m->head_dim) * sizeof(float));
    plan->qkv = room(from, rows * (m->heads + 2 * m->kv_heads) * m->head_dim * sizeof(float));
    plan->inner = room(from, rows * m->inner * sizeof(float));
    plan->cosines = room(from, rows * half * sizeof(float));
    plan->sines = room(from, rows * half * sizeof(float));
    plan->states = room(from, states * (2 + m->head_dim) * sizeof(float));
    plan->low = room(from, rows * plan->ranks * sizeof(bf16));
    plan->acts = make_acts(from, MAX(rows, TILE), wide);
    plan->rest = make_acts(from, MAX(rows, TILE), MAX(m->hidden, m->inner));
}

static void lay_out_thread(Thread *thread, Room *from) {
    const Model *m = thread->plan->model;
    int64_t dim = m->head_dim, wide = widest(m);
    thread->own = make_acts(from, MAX(ALONE, TILE), wide);
    thread->own_rest = make_acts(from, MAX(ALONE, TILE), MAX(m->hidden, m->inner));
    thread->lost = room(from, UP(MAX(m->hidden, m->inner), WIDE) * sizeof(float));
    thread->own_plain = room(from, ALONE * wide * sizeof(float));
    thread->product = room(from, 2 * MAX(thread->plan->rows, TILE) * 32 * sizeof(float));
    thread->panel = room(from, DEPTH * 32 * sizeof(Packed));
    thread->state = room(from, (2 + dim) * sizeof(float));
#ifndef USE_BF16
    thread->attention.keys = room(from, SPAN * dim * sizeof(Half));
    thread->attention.values = room(from, SPAN * dim * sizeof(Half));
#endif
    thread->attention.queries = room(from, BLOCK * dim * sizeof(Half));
    thread->attention.weights = room(from, QUERIES * SPAN * sizeof(Half));
    thread->attention.scores = room(from, QUERIES * SPAN * sizeof(float));
    thread->attention.sums = room(from, QUERIES * dim * sizeof(float));
}

/* ---- rows */

static void begin_row(const Plan *plan, int64_t row) {
    const Model *m = plan->model;
    const Text *text = plan->texts + plan->text_of[row];
    int64_t in_text = row - plan->first_of[plan->text_of[row]], half = m->head_dim / 2;
    const bf16 *from = m->embedding + text->ids[in_text] * m->hidden;
    int32_t spoilt = 0;
    for (int64_t i = 0; i < m->hidden; i++) {
        plan->x[row * m->hidden + i] = float_of(from[i]);
        spoilt |= (from[i] & 0x7f80) == 0x7f80;
    }
    if (spoilt) __atomic_store_n(plan->spoilt + plan->text_of[row], 1, __ATOMIC_RELAXED);
    for (int64_t i = 0; i < half; i++) {
        float angle = (float)(text->past + in_text) * m->frequencies[i];
        plan->cosines[row * half + i] = cosf(angle);
        plan->sines[row * half + i] = sinf(angle);
    }
}

/* Columns [begin, end) of the root mean square norm (Zhang & Sennrich 2019) of x: [count]. Returns the sum of squares. */
static __attribute__((noinline)) float norm_row(const float *x, const float *weight, int64_t count, float eps, int64_t begin, int64_t end, float *out) {
    F16 squares = {};
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) squares = madd(load(x + i), load(x + i), squares);
    float total = sum(squares);
    for (; i < count; i++) total += x[i] * x[i];
    float factor = 1.0f / sqrtf(total / count + eps);
    for (i = begin; i + LANES <= end; i += LANES) store(out + i, load(x + i) * factor * load(weight + i));
    for (; i < end; i++) out[i] = x[i] * factor * weight[i];
    return total;
}

/* x: [head_dim] turned by its position, in the half-split order of Hugging Face (Su et al. 2021). */
static __attribute__((noinline)) void rotate(float *x, const float *cosine, const float *sine, int64_t dim) {
    int64_t half = dim / 2, i = 0;
    for (; i + LANES <= half; i += LANES) {
        F16 a = load(x + i), b = load(x + half + i), c = load(cosine + i), s = load(sine + i);
        store(x + i, a * c - b * s);
        store(x + half + i, b * c + a * s);
    }
    for (; i < half; i++) {
        float a = x[i], b = x[half + i];
        x[i] = a * cosine[i] - b * sine[i];
        x[half + i] = b * cosine[i] + a * sine[i];
    }
}

/* Attention output of some heads of a row: the spans of each put together. out: [heads * head_dim] */
static void mixed_row(Thread *thread, int64_t row, int64_t begin, int64_t end, float *out) {
    const Plan *plan = thread->plan;
    const Model *m = plan->model;
    int64_t text = plan->text_of[row], slots = slots_of(plan->texts + text), size = 2 + m->head_dim;
    int64_t used = MIN(slots, (plan->texts[text].past + row - plan->first_of[text]) / SPAN + 1);
    for (int64_t head = begin; head < end; head++) {
        const float *states = plan->states + (plan->states_of[text] + ((row - plan->first_of[text]) * m->heads + head) * slots) * size;
        for (int64_t slot = 0; slot < used; slot++)
            merge(thread->state, states[slot * size], states[slot * size + 1], states + slot * size + 2, m->head_dim, slot == 0);
        float factor = 1.0f / thread->state[1];
        for (int64_t d = 0; d < m->head_dim; d += LANES) store(out + head * m->head_dim + d, load(thread->state + 2 + d) * factor);
    }
}

enum { NORMED, MIXED, INNER, FINAL };

/* Activations that get 16 bits, as two products of 8: those inside the MLP, whose outliers are the widest, and those that choose the words.
 * For the others that would cost more time than it is worth (docs/log.md). */
static int fine(int source) { return source == INNER || source == FINAL; }

/* Columns [begin, end) of one row of them. */
static void prepare_row(Thread *thread, int source, const float *weight, int64_t row, int64_t begin, int64_t end) {
    const Plan *plan = thread->plan;
    const Model *m = plan->model;
    const Acts *acts = &thread->acts;
    float *plain = thread->plain + row * acts->in;
    const float *x = plan->x + (source == FINAL ? plan->wants[row] : row) * m->hidden;
    if (source == MIXED) mixed_row(thread, row, begin / m->head_dim, end / m->head_dim, plain);
    float size = source == NORMED || source == FINAL ? norm_row(x, weight, m->hidden, m->eps, begin, end, plain) : 0;
    int64_t first = begin / GROUP, last = end == acts->in ? acts->groups : end / GROUP;
    quantise(acts, row, plain, first, last, thread->fine ? thread->lost : NULL);
    if (thread->fine) quantise(&thread->rest, row, thread->lost, first, last, NULL);
    /* Rounding would make numbers of what is none: the logits must not look as if they meant something. */
    if (source == FINAL && (!(size < __builtin_inff()) || plan->spoilt[plan->text_of[plan->wants[row]]])) spoil(acts, row, first, last);
}

/* The activations of the next product, quantised. weight: of the norm. A unit is a tile of rows, which lie mixed in memory, and so many of their
 * columns that there is work for every thread. */
static void prepare(Thread *thread, int source, const float *weight) {
    const Plan *plan = thread->plan;
    const Model *m = plan->model;
    int64_t rows = source == FINAL ? plan->wanted : plan->rows;
    int alone = rows <= ALONE;
    int64_t in = source == MIXED ? m->heads * m->head_dim : source == INNER ? m->inner : m->hidden;
    thread->acts = of_size(alone ? thread->own : plan->acts, rows, in);
    thread->fine = fine(source);
    thread->rest = of_size(alone ? thread->own_rest : plan->rest, rows, in);
    thread->plain = source == INNER ? plan->inner : alone ? thread->own_plain : plan->plain;
    if (alone) {
        for (int64_t row = 0; row < rows; row++) prepare_row(thread, source, weight, row, 0, in);
        return;
    }
    int64_t tiles = (rows + TILE - 1) / TILE, parts = (UNITS * thread->worker.threads + tiles - 1) / tiles;
    /* Whole heads and whole groups; a head is a multiple of half a group. */
    int64_t columns = UP((in + parts - 1) / parts, source != MIXED ? GROUP : m->head_dim % GROUP ? 2 * m->head_dim : m->head_dim);
    parts = (in + columns - 1) / columns;
    share(&thread->worker, tiles * parts, 1);
    for (int64_t unit; (unit = take(&thread->worker)) >= 0;) {
        int64_t first = unit / parts * TILE, begin = unit % parts * columns;
        for (int64_t row = first; row < MIN(first + TILE, rows); row++) prepare_row(thread, source, weight, row, begin, MIN(begin + columns, in));
    }
    meet(&thread->worker);
}

/* ---- linears */

static const Text *text_at(const Plan *plan, int64_t row, int final) { return plan->texts + plan->text_of[final ? plan->wants[row] : row]; }

/* Four sums side by side, for each addition waits for the one before it. */
static __attribute__((noinline)) float low_dot(const bf16 *a, const float *x, int64_t count) {
    F16 totals[4] = {};
    int64_t i = 0;
    for (; i + 4 * LANES <= count; i += 4 * LANES) {
        for (int64_t k = 0; k < 4 * LANES; k += 64 / sizeof *a) __builtin_prefetch(a + LOW_AHEAD + i + k, 0, 3);
        for (int64_t k = 0; k < 4; k++) totals[k] = madd(from_bf16(a + i + k * LANES), load(x + i + k * LANES), totals[k]);
    }
    for (; i + LANES <= count; i += LANES) totals[0] = madd(from_bf16(a + i), load(x + i), totals[0]);
    float s = sum((totals[0] + totals[1]) + (totals[2] + totals[3]));
    for (; i < count; i++) s += float_of(a[i]) * x[i];
    return s;
}

/* A x of all adapters (Hu et al. 2021) for `count` linears that share x. Others may still be at it: `lowering` is to be met before it is used. */
static void lower(Thread *thread, int64_t linear, int64_t count, int final) {
    const Plan *plan = thread->plan;
    if (!plan->ranks) return;
    int64_t in = thread->acts.in, chunks = (plan->ranks + RANKS - 1) / RANKS;
    share(&thread->worker, thread->acts.rows * chunks, 1);
    for (int64_t unit; (unit = take(&thread->worker)) >= 0;) {
        int64_t row = unit / chunks, begin = unit % chunks * RANKS, at = 0;
        const Text *text = text_at(plan, row, final);
        for (int64_t l = linear; l < linear + count; l++)
            for (int64_t a = 0; a < text->adapter_count; a++) {
                const Lora *lora = text->adapters[a] + l;
                for (int64_t r = MAX(0, begin - at); r < MIN(lora->rank, begin + RANKS - at); r++)
                    plan->low[row * plan->ranks + at + r] = half_of(lora->scale * text->strengths[a] * low_dot(lora->a + r * in, thread->plain + row * in, in));
                at += lora->rank;
            }
    }
    thread->lowering = thread->worker;
}

/* total += two ranks of 16 columns of B times two numbers of A x. */
INLINE F16 raise_pair(F16 total, const bf16 *low, const bf16 *pair) {
#ifdef USE_BF16
    int32_t both;
    memcpy(&both, low, sizeof both);
    return (F16)_mm512_dpbf16_ps((__m512)total, (__m512bh)_mm512_set1_epi32(both), (__m512bh)_mm512_loadu_si512(pair));
#else
    I16 both;
    memcpy(&both, pair, sizeof both);
    total = madd(all(float_of(low[0])), (F16)(both << 16), total);
    return madd(all(float_of(low[1])), (F16)(both & (int32_t)0xffff0000), total);
#endif
}

/* 16 finished outputs of a row from `column` on. low: A x of this linear's first adapter. */
INLINE F16 finished(const float *product, const Matrix *matrix, int64_t column, const Text *text, int64_t linear, const bf16 *low) {
    F16 y = load(product) * load(matrix->scale + column);
    if (matrix->bias) y += load(matrix->bias + column);
    for (int64_t a = 0; a < text->adapter_count; a++) {
        const Lora *lora = text->adapters[a] + linear;
        const bf16 *b = lora->b + column * lora->rank;
        F16 totals[4] = {}; /* side by side, for each addition waits for the one before it */
        int64_t r = 0;
        for (; r + 8 <= lora->rank; r += 8)
            for (int64_t k = 0; k < 4; k++) totals[k] = raise_pair(totals[k], low + r + 2 * k, b + (r + 2 * k) * LANES);
        for (; r < lora->rank; r += 2) totals[0] = raise_pair(totals[0], low + r, b + r * LANES);
        y += (totals[0] + totals[1]) + (totals[2] + totals[3]);
        low += lora->rank;
    }
    return y;
}

/* A copy whose length is not known takes longer than the product. */
static void put(float *to, F16 v, int64_t count) {
    if (count >= LANES) store(to, v);
    else memcpy(to, &v, count * sizeof(float));
}

/* 16 rows of a matrix from `first` on, the last one repeated; `next` is the row that is read after them. */
static Block block_of(const Matrix *matrix, int64_t first, const int8_t *next) {
    Block block = {.next = next};
    for (int i = 0; i < LANES; i++) block.rows[i] = matrix->weight + MIN(first + i, matrix->out - 1) * matrix->in;
    return block;
}

/* Products of the prepared activations with `count` matrices; `linear` numbers the first. out: [rows, stride], their outputs side by side. */
static void multiply(Thread *thread, const Matrix *matrices, int64_t linear, int64_t count, int end, float *out, int64_t stride, int final) {
    const Plan *plan = thread->plan;
    const Acts *acts = &thread->acts;
    lower(thread, linear, count, final);
    int64_t units = 0;
    if (end == GATED) units = (matrices->out + LANES - 1) / LANES;
    else
        for (int64_t l = 0; l < count; l++) units += (matrices[l].out + 31) / 32;
    share(&thread->worker, units, acts->rows <= FETCH_ROWS);
    for (int64_t unit; (unit = take(&thread->worker)) >= 0;) {
        int64_t l = 0, at = 0, column = unit * (end == GATED ? LANES : 32);
        for (; end != GATED && column >= UP(matrices[l].out, 32); l++) column -= UP(matrices[l].out, 32), at += matrices[l].out;
        const Matrix *left = matrices + l, *right = end == GATED ? matrices + 1 : left;
        int64_t second = end == GATED ? column : column + LANES;
        /* Few rows go through the blocks one after the other, more through both at once. */
        int64_t ahead = (end == GATED ? LANES : 2 * LANES) * acts->in;
        const int8_t *left_at = left->weight + column * acts->in, *right_at = right->weight + second * acts->in;
        Block left_block = block_of(left, column, acts->rows <= DIRECT_ROWS ? right_at : left_at + ahead);
        Block right_block = block_of(right, second, (acts->rows <= DIRECT_ROWS ? left_at : right_at) + ahead);
        panel_product(acts, thread->fine ? &thread->rest : NULL, &left_block, &right_block, thread->panel, thread->product);
        for (int64_t i = 0; thread->fine && i < acts->rows * 32; i += LANES)
            store(thread->product + i, load(thread->product + i) + load(thread->product + acts->rows * 32 + i));
        if (plan->ranks) meet(&thread->lowering);
        for (int64_t row = 0; row < acts->rows; row++) {
            const Text *text = text_at(plan, row, final);
            const bf16 *low = plan->low + row * plan->ranks;
            const float *product = thread->product + row * 32;
            if (text->adapter_count) low += ranks_of(text, linear, l);
            F16 y = finished(product, left, column, text, linear + l, low);
            if (end == GATED && text->adapter_count) low += ranks_of(text, linear, 1);
            F16 z = finished(product + LANES, right, second, text, linear + (end == GATED ? 1 : l), low);
            float *to = out + row * stride + at + column;
            int64_t left_over = left->out - column;
            if (end == GATED) put(to, y / (1.0f + exponential(-y)) * z, left_over);
            else {
                if (end == ADD) {
                    float old[32] = {0};
                    const float *before = left_over >= 32 ? to : memcpy(old, to, left_over * sizeof *old);
                    y += load(before), z += load(before + LANES);
                }
                put(to, y, left_over);
                if (left_over > LANES) put(to + LANES, z, left_over - LANES);
            }
        }
    }
    meet(&thread->worker);
}

/* ---- attention */

/* Panels of keys that a text's new tokens go into. */
static int64_t panels_of(const Text *text) { return (text->past + text->rows - 1) / LANES - text->past / LANES + 1; }

/* New keys, turned, and values into the caches; the queries are turned where they are. A unit is the part of a text in one panel, for neighbours are written together. */
static void append(Thread *thread, int64_t layer) {
    const Plan *plan = thread->plan;
    const Model *m = plan->model;
    int64_t dim = m->head_dim, stride = (m->heads + 2 * m->kv_heads) * dim, units = 0;
    for (int64_t i = 0; i < plan->text_count; i++) units += panels_of(plan->texts + i);
    share(&thread->worker, units, 1);
    for (int64_t unit; (unit = take(&thread->worker)) >= 0;) {
        int64_t index = 0;
        while (unit >= panels_of(plan->texts + index)) unit -= panels_of(plan->texts + index++);
        const Text *text = plan->texts + index;
        int64_t panel = text->past / LANES + unit, end = MIN(text->past + text->rows, (panel + 1) * LANES);
        for (int64_t position = MAX(text->past, panel * LANES); position < end; position++) {
            int64_t row = plan->first_of[index] + position - text->past;
            float *query = plan->qkv + row * stride, *key = query + m->heads * dim, *value = key + m->kv_heads * dim;
            for (float *part = query; part < value; part += dim) rotate(part, plan->cosines + row * dim / 2, plan->sines + row * dim / 2, dim);
            for (int64_t head = 0; head < m->kv_heads; head++) {
                keep_key(text->keys[layer] + head * text->capacity * dim, position, key + head * dim, dim);
                keep_value(text->values[layer] + head * text->capacity * dim, position, value + head * dim, dim);
            }
        }
    }
    meet(&thread->worker);
}

/* A unit of attention: rows [first, first + count) of a text, one head of keys, spans [from, to). */
typedef struct {
    int64_t text, first, count, kv_head, from, to;
} Piece;

static Piece piece_at(const Plan *plan, int64_t unit) {
    Piece piece = {0};
    while (unit >= plan->units_of[piece.text]) unit -= plan->units_of[piece.text++];
    const Text *text = plan->texts + piece.text;
    int64_t slots = slots_of(text), together = plan->together[piece.text], blocks = (text->rows + together - 1) / together;
    /* The rows of a head one after the other: its keys and values are near then, and what threads have between them is nearly equal. */
    piece.kv_head = unit / slots / blocks;
    piece.first = unit / slots % blocks * together;
    piece.count = MIN(together, text->rows - piece.first);
    piece.from = slots > 1 ? unit % slots : 0;
    piece.to = slots > 1 ? piece.from + 1 : plan->spans;
    return piece;
}

static void attend_piece(Thread *thread, int64_t layer, const Piece *piece) {
    const Plan *plan = thread->plan;
    const Model *m = plan->model;
    const Text *text = plan->texts + piece->text;
    int64_t dim = m->head_dim, group = m->heads / m->kv_heads, stride = (m->heads + 2 * m->kv_heads) * dim, slots = slots_of(text);
    int64_t seen[BLOCK], queries = piece->count * group, total = text->past + piece->first + piece->count;
    float *states[BLOCK], *to_states[QUERIES];
    for (int64_t query = 0; query < queries; query++) {
        int64_t in_text = piece->first + query / group, row = plan->first_of[piece->text] + in_text, head = piece->kv_head * group + query % group;
        for (int64_t d = 0; d < dim; d += LANES) to_half(thread->attention.queries + query * dim + d, load(plan->qkv + row * stride + head * dim + d));
        seen[query] = text->past + in_text + 1;
        states[query] = plan->states + (plan->states_of[piece->text] + (in_text * m->heads + head) * slots) * (2 + dim);
    }
    for (int64_t span = piece->from; span < piece->to && span * SPAN < total; span++) {
        int64_t at = (piece->kv_head * text->capacity + span * SPAN) * dim;
#ifdef USE_BF16
        const Half *keys = text->keys[layer] + at, *values = text->values[layer] + at;
#else
        const Half *keys = thread->attention.keys, *values = thread->attention.values;
        int64_t count = MIN(SPAN, total - span * SPAN);
        unfold(text->keys[layer] + at, UP(count, LANES) / LANES * dim / 2, thread->attention.keys);
        for (int64_t d = 0; d < dim; d += LANES) unfold(text->values[layer] + at + d * SPAN, UP(count, 2) / 2, thread->attention.values + d * SPAN);
#endif
        for (int64_t query = 0; query < queries; query += QUERIES) {
            int64_t some = MIN(QUERIES, queries - query);
            for (int64_t i = 0; i < some; i++) to_states[i] = states[query + i] + (slots > 1 ? span * (2 + dim) : 0);
            attend(&thread->attention, keys, values, thread->attention.queries + query * dim, some, seen + query, dim, 1.0f / sqrtf((float)dim), span,
                   to_states, slots == 1);
        }
    }
}

static void attention(Thread *thread, int64_t layer) {
    const Plan *plan = thread->plan;
    int64_t units = 0;
    append(thread, layer);
    for (int64_t i = 0; i < plan->text_count; i++) units += plan->units_of[i];
    share(&thread->worker, units, 0);
    for (int64_t unit; (unit = take(&thread->worker)) >= 0;) {
        Piece piece = piece_at(plan, unit);
        attend_piece(thread, layer, &piece);
    }
    meet(&thread->worker);
}

/* ---- the pass */

#define LOOPS(layers) ((layers) * 14 + 8) /* no pass has more of them */

static void run_thread(Thread *thread) {
    const Plan *plan = thread->plan;
    const Model *m = plan->model;
    int64_t qkv = (m->heads + 2 * m->kv_heads) * m->head_dim;
    share(&thread->worker, plan->rows, 1);
    for (int64_t row; (row = take(&thread->worker)) >= 0;) begin_row(plan, row);
    meet(&thread->worker);
    for (int64_t index = 0; index < m->layers; index++) {
        const Layer *layer = m->layer + index;
        int64_t linear = index * LINEARS;
        prepare(thread, NORMED, layer->attention_norm);
        multiply(thread, layer->linear + Q, linear + Q, 3, STORE, plan->qkv, qkv, 0);
        attention(thread, index);
        prepare(thread, MIXED, NULL);
        multiply(thread, layer->linear + O, linear + O, 1, ADD, plan->x, m->hidden, 0);
        prepare(thread, NORMED, layer->mlp_norm);
        multiply(thread, layer->linear + GATE, linear + GATE, 2, GATED, plan->inner, m->inner, 0);
        prepare(thread, INNER, NULL);
        multiply(thread, layer->linear + DOWN, linear + DOWN, 1, ADD, plan->x, m->hidden, 0);
    }
    prepare(thread, FINAL, m->norm);
    multiply(thread, &m->head, m->layers * LINEARS, 1, STORE, plan->logits, m->vocabulary, 1);
}

/* The OpenMP runtime that torch has loaded, called as compilers call it: no second pool of threads. */
typedef struct {
    void (*parallel)(void (*function)(void *), void *data, unsigned threads, unsigned flags);
    int (*threads_here)(void);
} OpenMP;

typedef struct {
    const Plan *plan;
    const OpenMP *openmp;
    Loop *loops;
    atomic_int here;
    char *rooms;
    int64_t room_size;
} Crew;

static void join(void *data) {
    Crew *crew = data;
    /* There may be fewer threads than were asked for. */
    int threads = crew->openmp ? crew->openmp->threads_here() : 1;
    int index = atomic_fetch_add(&crew->here, 1);
    Thread thread = {.plan = crew->plan, .worker = {.loop = crew->loops, .threads = threads, .index = index}};
    Room own = {crew->rooms + index * crew->room_size, 0};
    lay_out_thread(&thread, &own);
    run_thread(&thread);
}

static int64_t size_of(Plan *plan, int threads, int64_t *shared, int64_t *each) {
    Room from = {NULL, 0}, own = {NULL, 0};
    lay_out(plan, &from);
    Thread thread = {.plan = plan};
    lay_out_thread(&thread, &own);
    *shared = LOOPS(plan->model->layers) * LOOP_SIZE(threads) + from.used, *each = own.used;
    return *shared + *each * threads;
}

/* ---- what a caller must hold to; the checked build makes sure */

#ifdef LLMCHAT_CHECKED
static void check_matrix(const Matrix *matrix, int64_t out, int64_t in) {
    ASSERT(matrix->weight && matrix->scale && matrix->out == out && matrix->in == in);
}

static void check_model(const Model *m) {
    int64_t queries = m->heads * m->head_dim, keys = m->kv_heads * m->head_dim;
    ASSERT(m->layers > 0 && m->hidden > 0 && m->inner > 0 && m->vocabulary > 0 && m->vocabulary <= INT32_MAX);
    ASSERT(m->kv_heads > 0 && m->heads % m->kv_heads == 0 && m->heads / m->kv_heads <= QUERIES);
    ASSERT(m->head_dim > 0 && m->head_dim % LANES == 0);
    ASSERT(m->embedding && m->frequencies && m->norm && m->layer);
    check_matrix(&m->head, m->vocabulary, m->hidden);
    for (int64_t i = 0; i < m->layers; i++) {
        const Layer *layer = m->layer + i;
        ASSERT(layer->attention_norm && layer->mlp_norm);
        check_matrix(layer->linear + Q, queries, m->hidden);
        check_matrix(layer->linear + K, keys, m->hidden);
        check_matrix(layer->linear + V, keys, m->hidden);
        check_matrix(layer->linear + O, m->hidden, queries);
        check_matrix(layer->linear + GATE, m->inner, m->hidden);
        check_matrix(layer->linear + UP_, m->inner, m->hidden);
        check_matrix(layer->linear + DOWN, m->hidden, m->inner);
    }
}

static void check_text(const Model *m, const Text *text) {
    ASSERT(text->rows > 0 && text->past >= 0 && text->past + text->rows <= text->capacity && text->capacity % SPAN == 0);
    for (int64_t i = 0; i < text->rows; i++) ASSERT(text->ids[i] >= 0 && text->ids[i] < m->vocabulary);
    for (int64_t layer = 0; layer < m->layers; layer++) ASSERT(text->keys[layer] && text->values[layer]);
    for (int64_t a = 0; a < text->adapter_count; a++)
        for (int64_t l = 0; l <= m->layers * LINEARS; l++) {
            const Lora *lora = text->adapters[a] + l;
            ASSERT(lora->rank >= 0 && lora->rank % 2 == 0 && (!lora->rank || (lora->a && lora->b)));
        }
}
#endif

/* Bytes of workspace that llmchat_step needs for these texts. */
int64_t llmchat_room(const Model *model, const Text *texts, int64_t count, int threads) {
    int64_t shared, each;
    Plan plan = {.model = model, .texts = texts, .text_count = count};
    return size_of(&plan, threads, &shared, &each);
}

/* Read the new tokens of the texts; logits: [wanted rows, vocabulary]. workspace: llmchat_room bytes at a multiple of 64. */
void llmchat_step(const Model *model, const Text *texts, int64_t count, int threads, float *logits, char *workspace, const OpenMP *openmp) {
    int64_t shared, each, row = 0, wanted = 0, states = 0;
    Plan plan = {.model = model, .texts = texts, .text_count = count, .logits = logits};
#ifdef LLMCHAT_CHECKED
    check_model(model);
    for (int64_t i = 0; i < count; i++) check_text(model, texts + i);
#endif
    int64_t bytes = size_of(&plan, threads, &shared, &each), loop_bytes = LOOPS(model->layers) * LOOP_SIZE(threads);
    CLOSE(workspace + loop_bytes, bytes - loop_bytes);
    memset(workspace, 0, loop_bytes);
    Room from = {workspace + loop_bytes, 0};
    lay_out(&plan, &from);
    for (int64_t i = 0; i < count; i++) {
        plan.first_of[i] = row, plan.states_of[i] = states, plan.spoilt[i] = 0;
        plan.together[i] = rows_together(model, texts + i, threads);
        plan.units_of[i] = (texts[i].rows + plan.together[i] - 1) / plan.together[i] * model->kv_heads * slots_of(texts + i);
        states += texts[i].rows * model->heads * slots_of(texts + i);
        for (int64_t k = 0; k < texts[i].rows; k++, row++) {
            plan.text_of[row] = i;
            if (texts[i].every || k + 1 == texts[i].rows) plan.wants[wanted++] = row;
        }
    }
    Crew crew = {.plan = &plan, .openmp = threads > 1 ? openmp : NULL, .loops = (Loop *)workspace, .rooms = workspace + shared, .room_size = each};
    if (crew.openmp) openmp->parallel(join, &crew, threads, 0);
    else join(&crew);
    OPEN(workspace, bytes);
}

/* ---- sampling */

/* A token from a row of logits. found: room for `count`; from *from up to *to are those that might have come, the likeliest last. */
int64_t llmchat_choose(const float *logits, int64_t count, const Choosing *how, Candidate *found, int64_t *from, int64_t *to) {
    return choose_token(logits, count, how, found, from, to);
}

/* ---- a product alone, for tests and measurements */

typedef struct {
    Thread *threads;
    const Matrix *matrices;
    const OpenMP *openmp;
    int64_t count;
    const float *x;
    float *out;
    atomic_int here;
} Products;

static void join_products(void *data) {
    Products *products = data;
    int index = atomic_fetch_add(&products->here, 1);
    Thread *thread = products->threads + index;
    thread->worker.threads = products->openmp ? products->openmp->threads_here() : 1;
    for (int64_t i = 0; i < products->count; i++) {
        const Matrix *matrix = products->matrices + i;
        multiply(thread, matrix, 0, 1, STORE, products->out + i * thread->acts.rows * matrix->out, matrix->out, 0);
    }
}

/* out[count][rows][matrix.out] = x[rows][in] times each of `count` matrices of one shape. Returns 1 without memory. */
int llmchat_multiply(const Matrix *matrices, int64_t count, const float *x, int64_t rows, float *out, int threads, const OpenMP *openmp) {
    Text text = {.rows = rows};
    Plan plan = {.texts = &text, .text_count = 1, .rows = rows};
    Room sizes = {NULL, 0};
    int64_t product = UP(MAX(rows, TILE) * 32 * sizeof(float), 64), panel = UP(DEPTH * 32 * sizeof(Packed), 64);
    make_acts(&sizes, rows, matrices->in);
    int64_t bytes = sizes.used + (count + 1) * LOOP_SIZE(threads) + UP(rows * sizeof(int32_t), 64) + threads * (UP(sizeof(Thread), 64) + product + panel);
    bytes += (3 + 2 * threads) * GAP;
    char *memory = aligned_alloc(64, bytes);
    if (!memory) return 1;
    memset(memory, 0, bytes);
    Room from = {memory, 0};
    Acts acts = make_acts(&from, rows, matrices->in);
    acts = of_size(acts, rows, matrices->in);
    for (int64_t row = 0; row < rows; row++) quantise(&acts, row, x + row * acts.in, 0, acts.groups, NULL);
    Loop *loops = room(&from, (count + 1) * LOOP_SIZE(threads));
    plan.text_of = room(&from, rows * sizeof(int32_t));
    Products products = {.matrices = matrices, .count = count, .x = x, .out = out, .openmp = threads > 1 ? openmp : NULL};
    products.threads = room(&from, threads * sizeof(Thread));
    for (int i = 0; i < threads; i++) {
        float *results = room(&from, product);
        products.threads[i] = (Thread){.plan = &plan, .worker = {.loop = loops, .index = i}, .acts = acts, .product = results, .panel = room(&from, panel)};
    }
    if (products.openmp) openmp->parallel(join_products, &products, threads, 0);
    else join_products(&products);
    free(memory);
    return 0;
}

/* ---- how fast memory is, for measurements */

#define PIECE (1 << 20)
#define MOST_THREADS 256 /* that Python asks for (build.py) */

typedef struct {
    const char *from;
    int64_t pieces;
    Loop *loop;
    const OpenMP *openmp;
    atomic_int here, sum;
} Reading;

static void join_reading(void *data) {
    Reading *reading = data;
    Worker worker = {.loop = reading->loop, .threads = reading->openmp ? reading->openmp->threads_here() : 1};
    worker.index = atomic_fetch_add(&reading->here, 1);
    I16 sums[4] = {{0}};
    share(&worker, reading->pieces, 1);
    for (int64_t piece; (piece = take(&worker)) >= 0;)
        for (const char *at = reading->from + piece * PIECE, *end = at + PIECE; at < end; at += sizeof sums) {
            I16 part[4];
            memcpy(part, at, sizeof part);
            for (int i = 0; i < 4; i++) sums[i] += part[i], __builtin_prefetch(at + 4096 + i * 64, 0, 2);
        }
    atomic_fetch_add(&reading->sum, total_of(sums[0] + sums[1] + sums[2] + sums[3]));
}

/* Read whole mebibytes, and do nothing else; returns a sum of what was there. */
int llmchat_read(const char *from, int64_t bytes, int threads, const OpenMP *openmp) {
    _Alignas(64) char loops[2 * LOOP_SIZE(MOST_THREADS)] = {0};
    Reading reading = {.from = from, .pieces = bytes / PIECE, .loop = (Loop *)loops, .openmp = threads > 1 ? openmp : NULL};
    if (reading.openmp) openmp->parallel(join_reading, &reading, threads, 0);
    else join_reading(&reading);
    return reading.sum;
}
