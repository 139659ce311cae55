/* Multi-head latent attention: queries, keys and values of every head are made of a few numbers
 * each, then attention is as usual. */
#pragma once
#include "attention.h"

static Source normed_rows(const Norm *norm, const float *rows) {
    return (Source){.kind = FROM_ROWS, .width = norm->count, .rows = rows, .norm = norm};
}

/* Keys of all heads of a row: their own plain numbers, then the shared ones. */
static void assemble_keys(const LatentAttention *l, float *row) {
    const Attention *a = &l->attention;
    const Heads *keys = &a->keys, *values = &a->values;
    for (int64_t head = 0; head < keys->count; head++) {
        float *key = row + head_begin(keys, head);
        memcpy(key, row + head_begin(values, head) - l->plain, l->plain * sizeof *key);
        memcpy(key + l->plain, row + l->turning, (keys->width - l->plain) * sizeof *key);
    }
}

static void run_latent_inputs(Worker *worker, const Block *block) {
    const LatentAttention *l = block->details;
    const Pass *pass = worker->pass;
    int64_t width = l->attention.width, ranks = l->query_norm.count;
    int64_t down = ranks ? 2 : 1;
    float *few = pass->inner, *latent = few + pass->rows * ranks;
    prepare_input(worker, block_input(worker, block));
    run_one_linear(worker, block, 0, ranks ? few : pass->wide, ranks ? ranks : width);
    run_one_linear(worker, block, down, latent, l->latent_norm.count);
    run_one_linear(worker, block, down + 1, pass->wide + l->turning, width);
    if (ranks) {
        prepare_input(worker, normed_rows(&l->query_norm, few));
        run_one_linear(worker, block, 1, pass->wide, width);
    }
    prepare_input(worker, normed_rows(&l->latent_norm, latent));
    run_one_linear(worker, block, down + 2, pass->wide + l->up, width);
}

static void run_latent_attention(Worker *worker, const Block *block) {
    const LatentAttention *l = block->details;
    const Attention *a = &l->attention;
    const Pass *pass = worker->pass;
    run_latent_inputs(worker, block);
    loop_begin(&worker->cursor, pass->rows, 1);
    for (int64_t row; (row = loop_next(&worker->cursor)) >= 0;)
        assemble_keys(l, pass->wide + row * a->width);
    barrier(&worker->cursor);
    attend(worker, a);
    prepare_input(worker, (Source){.kind = FROM_ATTENTION,
                                   .width = a->queries.count * a->values.width,
                                   .attention = a});
    run_output(worker, block, block->linear_count - 1);
}
