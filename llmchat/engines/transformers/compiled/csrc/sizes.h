/* How wide the rows of a pass are: the most that any block of a model needs. */
#pragma once
#include "model.h"

/* The most columns of a state in one unit of work. */
#define MOST_COLUMNS 64

/* The widest rows and the largest heads among all blocks of a model. */
typedef struct {
    int64_t input;        /* inputs of linears */
    int64_t two_term;     /* those of them that are quantised to two terms */
    int64_t wide;         /* outputs of the inputs of a block, other than an MLP */
    int64_t inner;        /* of an MLP, or of a recurrent block */
    int64_t mixed;        /* results of a recurrent block, before its output */
    int64_t columns;      /* numbers of the columns of a state, see recurrence.h */
    int64_t values;       /* heads * width, results of attention */
    int64_t keys, value;  /* widths of a head of keys, and of values */
    int64_t value_row;    /* values of all heads */
    int64_t layer_inputs; /* inputs of all layers */
    int64_t rotary_pairs; /* of all rotary embeddings */
    int64_t experts, top; /* of a mixture of experts */
    int64_t expert_inner, shared_inner;
    int64_t streams;
    int64_t first_values; /* of the first block of RWKV-7 */
    int64_t heads, head_input; /* of latent attention, and what a head multiplies */
    int64_t normed; /* of a row that experts or their router read through a norm */
} Sizes;

static void include_attention(Sizes *sizes, const Block *block) {
    const Attention *a = block->details;
    int64_t values = a->queries.count * a->values.width;
    sizes->wide = MAX(sizes->wide, a->width);
    sizes->values = MAX(sizes->values, values);
    sizes->input = MAX(sizes->input, values);
    sizes->keys = MAX(sizes->keys, a->keys.width);
    sizes->value = MAX(sizes->value, a->values.width);
    sizes->value_row = MAX(sizes->value_row, a->values.count * a->values.width);
}

static void include_latent(Sizes *sizes, const Block *block) {
    const LatentAttention *l = block->details;
    int64_t ranks = l->query_norm.count, latent = l->latent_norm.count;
    int64_t heads = l->attention.queries.count, turning = l->attention.queries.width - latent;
    include_attention(sizes, block);
    sizes->inner = MAX(sizes->inner, heads * (l->plain + turning) + ranks + latent);
    sizes->mixed = MAX(sizes->mixed, heads * l->value_width);
    sizes->input = MAX(sizes->input, MAX(heads * l->value_width, MAX(ranks, latent)));
    sizes->heads = MAX(sizes->heads, heads);
    sizes->head_input = MAX(sizes->head_input, MAX(l->plain, latent));
    /* Its norm takes the place of results of attention. */
    sizes->values = MAX(sizes->values, ranks);
}

static void include_mlp(Sizes *sizes, const Block *block) {
    int64_t inner = block->linear->out;
    sizes->inner = MAX(sizes->inner, inner);
    if (cuts_gates(block)) sizes->wide = MAX(sizes->wide, 2 * inner);
    sizes->input = MAX(sizes->input, inner);
    sizes->two_term = MAX(sizes->two_term, inner);
}

/* Numbers of a row of each, and rows of a state. */
static void include_recurrent(Sizes *sizes, int64_t wide, int64_t inner, int64_t mixed,
                              int64_t depth) {
    sizes->wide = MAX(sizes->wide, wide);
    sizes->inner = MAX(sizes->inner, inner);
    sizes->mixed = MAX(sizes->mixed, mixed);
    sizes->input = MAX(sizes->input, mixed);
    sizes->two_term = MAX(sizes->two_term, mixed);
    sizes->columns = MAX(sizes->columns, depth * MOST_COLUMNS);
}

/* A linear of so many outputs, which another one reads in two terms. */
static void include_low_rank(Sizes *sizes, int64_t rank) {
    sizes->input = MAX(sizes->input, rank);
    sizes->two_term = MAX(sizes->two_term, rank);
}

static void include_delta_net(Sizes *sizes, const Block *block) {
    const DeltaNet *d = block->details;
    int64_t inner = d->convolution.channels + decays_of(d), ranks = 0;
    include_recurrent(sizes, d->width, inner, d->values.count * d->values.width, d->keys.width);
    for (int64_t i = 0; i < d->pairs; i++) {
        int64_t low = block->linear[block->inputs + i].out;
        include_low_rank(sizes, low);
        ranks += low;
    }
    sizes->inner = MAX(sizes->inner, ranks);
}

static void include_mamba(Sizes *sizes, const Block *block) {
    const Mamba *m = block->details;
    int64_t channels = m->convolution.channels, inner = m->heads * m->width;
    include_recurrent(sizes, inner + channels + m->heads, channels + 2 * m->heads, inner, m->state);
}

static void include_experts(Sizes *sizes, const Block *block) {
    const Experts *e = block->details;
    sizes->experts = MAX(sizes->experts, e->experts);
    sizes->top = MAX(sizes->top, e->top);
    sizes->expert_inner = MAX(sizes->expert_inner, e->inner);
    sizes->shared_inner = MAX(sizes->shared_inner, e->shared_inner);
    sizes->two_term = MAX(sizes->two_term, MAX(e->inner, e->shared_inner));
    sizes->normed = MAX(sizes->normed, MAX(e->router_norm.count, e->expert_norm.count));
}

static void include_rwkv7(Sizes *sizes, const Block *block) {
    const Rwkv7Time *r = block->details;
    int64_t width = r->heads * r->width, rank = 0;
    for (int64_t i = 0; i < r->pairs; i++) rank = MAX(rank, block->linear[3 + i].out);
    include_recurrent(sizes, 7 * width, 6 * width + rank, width, r->width);
    include_low_rank(sizes, rank);
    sizes->first_values = width;
}

static void include_block(Sizes *sizes, const Model *m, const Block *block) {
    const Convolution *c = block->details;
    switch (block->kind) {
    case MEMORY:
    case ATTENTION: include_attention(sizes, block); break;
    case LATENT_ATTENTION: include_latent(sizes, block); break;
    case OPEN_STREAMS: sizes->streams = MAX(sizes->streams, block->linear_count + 1); break;
    case MLP:
    case LAUREL:
    case LAYER_INPUT: include_mlp(sizes, block); break;
    case EXPERTS: include_experts(sizes, block); break;
    case DELTA_NET: include_delta_net(sizes, block); break;
    case MAMBA: include_mamba(sizes, block); break;
    case SHORT_CONVOLUTION: include_recurrent(sizes, 3 * c->channels, 0, c->channels, 0); break;
    case RWKV_TIME: include_recurrent(sizes, 3 * m->hidden, 3 * m->hidden, m->hidden, 0); break;
    case RWKV7_TIME: include_rwkv7(sizes, block); break;
    case RWKV_CHANNEL:
        include_mlp(sizes, block);
        include_recurrent(sizes, block->linear->out, 2 * m->hidden, m->hidden, 0);
        break;
    }
}

static Sizes sizes_of(const Model *m) {
    Sizes sizes = {.input = m->hidden, .two_term = m->hidden, .keys = LANES, .value = LANES};
    if (m->layer_inputs) sizes.layer_inputs = m->layer_inputs->linear.out;
    for (int64_t i = 0; i < m->rotaries; i++) sizes.rotary_pairs += m->rotary[i].half;
    for (int64_t i = 0; i < m->blocks; i++) include_block(&sizes, m, m->block + i);
    return sizes;
}
