/* Multi-head latent attention (DeepSeek-V2, 2024). The cache holds the latent numbers of a position
 * and the shared part of its keys. Each head multiplies its queries with its part of the weights
 * that would make keys of latent numbers ("absorbed"), and what it sums of them with those that
 * would make values; all heads share one head of keys. */
#pragma once
#include "attention.h"

static Source normed_rows(const Norm *norm, const float *rows) {
    return (Source){.kind = FROM_ROWS, .width = norm->count, .rows = rows, .norm = norm};
}

/* matrices: [heads] */
typedef struct {
    const Matrix *matrices;
    float *out; /* of row r and head h from r * stride + h * head_stride on */
    int64_t stride, head_stride;
    int is_back; /* from the outputs of `up` to its inputs */
} HeadProducts;

/* The number of the linear `up` in the model, for adapters. */
static int64_t up_number(const Block *block) {
    return block->first_linear + block->linear_count - 2;
}

/* The first output of a head in `up`. */
static int64_t up_column(const LatentAttention *l, int64_t head, int is_back) {
    return head * (l->plain + l->value_width) + (is_back ? 0 : l->plain);
}

/* The input of a head, quantised. */
static Activations head_input(const Pass *pass, int64_t head, int64_t in) {
    int64_t rows = pass->rows, first = head * ROUND_UP(rows, TILE_ROWS) * ROUND_UP(in, CACHE_LINE);
    Activations acts = with_shape(pass->head_acts, rows, in);
    return moved_by(acts, first);
}

/* ---- live adapters of `up`: y += strength * scale * B A x, of which a head has some rows of B */

static bf16 *head_lora(const Pass *pass, const LatentAttention *l, int64_t row, int64_t head) {
    return pass->head_lora + (row * l->attention.queries.count + head) * pass->ranks;
}

/* Number `rank` of B^T x for x: [count], the outputs from `column` on, a multiple of 16. */
static float rank_of_outputs(const Lora *lora, int64_t rank, int64_t column, const float *x,
                             int64_t count) {
    const bf16 *b = lora->b + column * lora->rank + rank / 2 * 2 * LANES + rank % 2;
    float sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += bf16_to_float(b[i / LANES * LANES * lora->rank + i % LANES * 2]) * x[i];
    return sum;
}

/* What queries of a head, x: [plain], give in the ranks of all adapters. */
static void find_ranks_back(const SequenceRows *sequence, int64_t linear, int64_t column,
                            const float *x, int64_t count, bf16 *hidden) {
    for (int64_t a = 0; a < sequence->adapter_count; a++) {
        const Lora *lora = sequence->adapters[a] + linear;
        float factor = lora->scale * sequence->strengths[a];
        for (int64_t r = 0; r < lora->rank; r++)
            *hidden++ = float_to_bf16(factor * rank_of_outputs(lora, r, column, x, count));
    }
}

/* y + A^T times the ranks, for 16 inputs of `up` from `column` on. */
static f32x16 lora_back(f32x16 y, int64_t column, int64_t in, const SequenceRows *sequence,
                        int64_t linear, const bf16 *hidden) {
    for (int64_t a = 0; a < sequence->adapter_count; a++) {
        const Lora *lora = sequence->adapters[a] + linear;
        f32x16 total = {};
        for (int64_t r = 0; r < lora->rank; r++)
            total = fused_madd(splat(bf16_to_float(hidden[r])),
                               load_bf16(lora->a + r * in + column), total);
        y += total, hidden += lora->rank;
    }
    return y;
}

/* ---- products of heads */

/* 16 finished outputs of a row from `column` on. */
static f32x16 finish_head(const Worker *worker, const Block *block, const HeadProducts *products,
                          int64_t head, int64_t row, int64_t column, const float *product) {
    const Pass *pass = worker->pass;
    const LatentAttention *l = block->details;
    const SequenceRows *sequence = sequence_at(pass, row, 0);
    const Matrix *matrix = products->matrices + head;
    const bf16 *hidden = head_lora(pass, l, row, head);
    f32x16 y = load(product) * load(matrix->scale + column);
    if (column >= matrix->out) return y;
    if (products->is_back)
        return lora_back(y, column, matrix->out, sequence, up_number(block), hidden);
    return lora_up(y, up_column(l, head, 0) + column, sequence, up_number(block), hidden);
}

static void run_head_panel(Worker *worker, const Block *block, const HeadProducts *products,
                           int64_t head, int64_t column) {
    const Matrix *matrix = products->matrices + head;
    Activations acts = head_input(worker->pass, head, matrix->in);
    Panel panel = {matrix, matrix, 0, column, column + LANES, 0};
    multiply_rows(worker, &acts, NULL, &panel, PANEL_COLUMNS);
    int64_t left = matrix->out - column;
    for (int64_t row = 0; row < worker->pass->rows; row++) {
        const float *product = worker->product + row * PANEL_COLUMNS;
        float *target =
            products->out + row * products->stride + head * products->head_stride + column;
        f32x16 y = finish_head(worker, block, products, head, row, column, product);
        f32x16 z = finish_head(worker, block, products, head, row, column + LANES, product + LANES);
        store_some(target, y, left);
        if (left > LANES) store_some(target + LANES, z, left - LANES);
    }
}

/* The products of all heads, whose inputs are prepared. */
static void run_head_products(Worker *worker, const Block *block, const HeadProducts *products) {
    const LatentAttention *l = block->details;
    int64_t panels = (products->matrices->out + PANEL_COLUMNS - 1) / PANEL_COLUMNS;
    loop_begin(&worker->cursor, l->attention.queries.count * panels,
               worker->pass->rows <= PREFETCH_MAX_ROWS);
    for (int64_t unit; (unit = loop_next(&worker->cursor)) >= 0;)
        run_head_panel(worker, block, products, unit / panels, unit % panels * PANEL_COLUMNS);
    barrier(&worker->cursor);
}

/* ---- queries and keys */

/* The latent numbers of a row, normed, where its key is. latent: [R, latent] */
static void norm_latent(const Pass *pass, const LatentAttention *l, const float *latent,
                        int64_t row) {
    const Attention *a = &l->attention;
    norm_row(&l->latent_norm, latent + row * a->values.width, 0, a->values.width,
             pass->wide + row * a->width + a->keys.start);
}

/* Quantise the plain part of a query, and put its other part to its place. */
static void prepare_query(const Pass *pass, const Block *block, int64_t row, int64_t head) {
    const LatentAttention *l = block->details;
    const Attention *a = &l->attention;
    int64_t turning = a->queries.width - a->values.width, width = l->plain + turning;
    const float *x = pass->inner + (row * a->queries.count + head) * width;
    float *target = pass->wide + row * a->width + head_begin(&a->queries, head) + a->values.width;
    Activations acts = head_input(pass, head, l->plain);
    quantise(&acts, row, x, 0, acts.groups, NULL);
    memcpy(target, x + l->plain, turning * sizeof *target);
    if (pass->ranks)
        find_ranks_back(sequence_at(pass, row, 0), up_number(block), up_column(l, head, 1), x,
                        l->plain, head_lora(pass, l, row, head));
}

/* Queries as they are multiplied with latent numbers, and the keys of the rows. */
static void run_latent_inputs(Worker *worker, const Block *block) {
    const LatentAttention *l = block->details;
    const Attention *a = &l->attention;
    const Pass *pass = worker->pass;
    int64_t heads = a->queries.count, latents = a->values.width, ranks = l->query_norm.count;
    int64_t queries = heads * (l->plain + a->queries.width - latents), down = ranks ? 2 : 1;
    float *few = pass->inner + pass->rows * queries, *latent = few + pass->rows * ranks;
    prepare_input(worker, block_input(worker, block));
    run_one_linear(worker, block, 0, ranks ? few : pass->inner, ranks ? ranks : queries);
    run_one_linear(worker, block, down, latent, latents);
    run_one_linear(worker, block, down + 1, pass->wide + a->keys.start + latents, a->width);
    if (ranks) {
        prepare_input(worker, normed_rows(&l->query_norm, few));
        run_one_linear(worker, block, 1, pass->inner, queries);
    }
    loop_begin(&worker->cursor, pass->rows * (heads + 1), 1);
    for (int64_t unit; (unit = loop_next(&worker->cursor)) >= 0;) {
        int64_t row = unit / (heads + 1), head = unit % (heads + 1);
        if (head < heads)
            prepare_query(pass, block, row, head);
        else
            norm_latent(pass, l, latent, row);
    }
    barrier(&worker->cursor);
    run_head_products(worker, block,
                      &(HeadProducts){.matrices = l->to_latent,
                                      .out = pass->wide,
                                      .stride = a->width,
                                      .head_stride = a->queries.stride,
                                      .is_back = 1});
}

/* ---- values */

/* Quantise what a head sums of latent numbers. */
static void prepare_sum(Worker *worker, const Block *block, int64_t row, int64_t head) {
    const Pass *pass = worker->pass;
    const LatentAttention *l = block->details;
    const SequenceRows *sequence = sequence_at(pass, row, 0);
    int64_t latents = l->attention.values.width;
    float *sum = worker->own_unquantised;
    Activations acts = head_input(pass, head, latents);
    merge_heads(worker, &l->attention, row, head, head + 1, sum);
    quantise(&acts, row, sum, 0, acts.groups, NULL);
    for (int64_t begin = 0; begin < pass->ranks; begin += RANKS_PER_UNIT)
        lora_ranks(sequence, up_number(block), 1, sum, latents, begin, 1.0f,
                   head_lora(pass, l, row, head));
}

static void run_latent_values(Worker *worker, const Block *block) {
    const LatentAttention *l = block->details;
    const Pass *pass = worker->pass;
    int64_t heads = l->attention.queries.count, width = l->value_width;
    loop_begin(&worker->cursor, pass->rows * heads, 1);
    for (int64_t unit; (unit = loop_next(&worker->cursor)) >= 0;)
        prepare_sum(worker, block, unit / heads, unit % heads);
    barrier(&worker->cursor);
    run_head_products(worker, block,
                      &(HeadProducts){.matrices = l->to_values,
                                      .out = pass->mixed,
                                      .stride = heads * width,
                                      .head_stride = width});
}

static void run_latent_attention(Worker *worker, const Block *block) {
    const LatentAttention *l = block->details;
    int64_t width = l->attention.queries.count * l->value_width;
    run_latent_inputs(worker, block);
    attend(worker, &l->attention);
    run_latent_values(worker, block);
    prepare_input(worker, (Source){.kind = FROM_ROWS, .width = width, .rows = worker->pass->mixed});
    run_output(worker, block, block->linear_count - 1);
}
