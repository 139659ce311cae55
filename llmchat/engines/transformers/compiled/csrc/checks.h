/* What the caller must guarantee; the checked build verifies it. */
#pragma once
#include "attention_kernel.h"
#include "grouped_scales.h"
#include "model.h"

/* Bytes of 16 rows, see packed_bytes in quantised/packed.py. */
static int64_t block_bytes_of(const Grouping *g, int64_t in) {
    int64_t group = CODE_CHUNK / g->halves, block = g->block_groups * group, bytes = 0;
    int64_t number = g->scale_type == SCALE_F32 ? 4 : 2;
    int64_t of_block = number * (1 + g->has_minimum) + g->has_zeros;
    int64_t of_group = (g->scales != NO_SCALES) + g->has_minima;
    for (int64_t first = 0; first < in; first += CODE_PIECE) {
        int64_t end = MIN(first + CODE_PIECE, ROUND_UP(in, CODE_CHUNK));
        int64_t blocks = (end + block - 1) / block - (first + block - 1) / block;
        bytes += ROUND_UP(LANES * (blocks * of_block + (end - first) / group * of_group), 64);
        bytes += (end - first) * 2 * g->bits;
    }
    return bytes;
}

static void check_grouping(const Matrix *matrix) {
    const Grouping *g = matrix->grouping;
    ASSERT(g->bits >= 2 && g->bits <= 8 && g->bits != 7 && (g->halves == 1 || g->halves == 2));
    ASSERT(g->block_groups > 0 && g->zero >= 0 && g->zero < 256 && !matrix->scale);
    ASSERT(!g->has_table || (g->bits == 4 && g->zero == 128));
    ASSERT(matrix->block_bytes == block_bytes_of(g, matrix->in));
    for (int64_t i = 0; matrix->order && i < matrix->in; i++)
        ASSERT(matrix->order[i] >= 0 && matrix->order[i] < matrix->in);
}

static void check_matrix(const Matrix *matrix, int64_t out, int64_t in) {
    ASSERT(matrix->weight && matrix->out == out && matrix->in == in);
    ASSERT(matrix->scale || matrix->grouping);
    if (matrix->grouping) check_grouping(matrix);
}

static void check_norm(const Norm *norm, int64_t count) {
    if (!norm->count) return;
    ASSERT(norm->weight && norm->count == count);
    ASSERT(norm->group > 0 && norm->count % norm->group == 0);
}

static void check_heads(const Heads *heads, int64_t row) {
    ASSERT(heads->count > 0 && heads->width > 0 && heads->width % LANES == 0);
    ASSERT(heads->start >= 0 && heads->together > 0);
    for (int64_t head = 0; head < heads->count; head++)
        ASSERT(head_begin(heads, head) + heads->width <= row);
}

static void check_attention(const Model *m, const Block *block) {
    const Attention *a = block->details;
    int64_t width = 0;
    ASSERT(block->linear_count == block->inputs + 1);
    for (int64_t i = 0; i < block->inputs; i++) {
        width += block->linear[i].out;
        check_matrix(block->linear + i, block->linear[i].out, m->hidden);
    }
    ASSERT(width == a->width);
    check_matrix(block->linear + block->inputs, m->hidden, a->queries.count * a->values.width);
    check_heads(&a->queries, a->width);
    if (!a->shares) check_heads(&a->keys, a->width), check_heads(&a->values, a->width);
    if (a->gates.count) check_heads(&a->gates, a->width);
    ASSERT(a->keys.count > 0 && a->queries.count % a->keys.count == 0);
    ASSERT(a->queries.width == a->keys.width && a->values.width % LANES == 0);
    ASSERT(sharing_heads(a) <= QUERY_BLOCK);
    ASSERT(a->rotary < m->rotaries && a->second_rotary < m->rotaries);
    ASSERT(a->cache >= 0 && a->cache < m->blocks);
    ASSERT(a->window >= 0 && a->chunk >= 0 && (!a->distances || a->reach > 0));
    if (a->sees == SEES_MEMORY) {
        ASSERT(m->block[a->cache].kind == MEMORY && a->rotary < 0 && !a->clip);
        ASSERT(!a->query_norm.count);
    }
}

static void check_memory(const Model *m, const Block *block) {
    const Attention *a = block->details;
    ASSERT(block->linear_count == 2 && block->inputs == 2 && block - m->block < m->encoder_blocks);
    check_matrix(block->linear, a->keys.count * a->keys.width, m->hidden);
    check_matrix(block->linear + 1, a->width - block->linear->out, m->hidden);
    check_heads(&a->keys, a->width), check_heads(&a->values, a->width);
    ASSERT(!a->queries.count && a->rotary < 0 && a->cache == block - m->block);
}

static void check_latent(const Model *m, const Block *block) {
    const LatentAttention *l = block->details;
    const Attention *a = &l->attention;
    const Matrix *linear = block->linear;
    int64_t heads = a->queries.count, latent = l->latent_norm.count, ranks = l->query_norm.count;
    int64_t turning = a->keys.width - latent, width = l->plain + turning;
    ASSERT(block->linear_count == (ranks ? 6 : 5) && latent > 0);
    check_matrix(linear++, ranks ? ranks : heads * width, m->hidden);
    if (ranks) check_matrix(linear++, heads * width, ranks);
    check_matrix(linear++, latent, m->hidden);
    check_matrix(linear++, turning, m->hidden);
    check_matrix(linear++, heads * (l->plain + l->value_width), latent);
    check_matrix(linear++, m->hidden, heads * l->value_width);
    for (int64_t head = 0; head < heads; head++) {
        check_matrix(l->to_latent + head, latent, l->plain);
        check_matrix(l->to_values + head, l->value_width, latent);
    }
    check_norm(&l->query_norm, ranks), check_norm(&l->latent_norm, latent);
    check_heads(&a->queries, a->width), check_heads(&a->keys, a->width);
    check_heads(&a->values, a->width);
    ASSERT(l->plain > 0 && l->plain % LANES == 0 && l->value_width % LANES == 0 && turning > 0);
    ASSERT(a->keys.count == 1 && a->values.count == 1 && a->values.width == latent);
    ASSERT(a->keys.start == a->values.start && a->keys.start == heads * a->queries.stride);
    ASSERT(a->rotary >= 0 && a->rotary < m->rotaries && a->cache >= 0 && a->cache < m->blocks);
}

static void check_mlp(const Model *m, const Block *block) {
    ASSERT(block->inputs == 1 || block->inputs == 2);
    ASSERT(block->linear_count == block->inputs + 1);
    int64_t inner = block->linear->out;
    for (int64_t i = 0; i < block->inputs; i++) check_matrix(block->linear + i, inner, m->hidden);
    check_matrix(block->linear + block->inputs, m->hidden, inner);
    ASSERT(!cuts_gates(block) || block->inputs == 2);
}

static void check_convolution(const Convolution *c, int64_t channels) {
    ASSERT(c->weight && c->kernel > 0 && c->channels == channels && channels % LANES == 0);
}

/* The pairs of linears of a block; returns the outputs of the second ones. */
static int64_t check_pairs(const Model *m, const Matrix *linear, int64_t pairs) {
    int64_t width = 0;
    for (int64_t i = 0; i < pairs; i++) {
        check_matrix(linear + i, linear[i].out, m->hidden);
        check_matrix(linear + pairs + i, linear[pairs + i].out, linear[i].out);
        width += linear[pairs + i].out;
    }
    return width;
}

/* The inputs of a recurrent block, and its one output. */
static void check_recurrent(const Model *m, const Block *block, int64_t width, int64_t mixed) {
    ASSERT(block->linear_count == block->inputs + 1);
    for (int64_t i = 0; i < block->inputs; i++) {
        width -= block->linear[i].out;
        check_matrix(block->linear + i, block->linear[i].out, m->hidden);
    }
    ASSERT(!width);
    check_matrix(block->linear + block->inputs, m->hidden, mixed);
}

static void check_delta_net(const Model *m, const Block *block) {
    const DeltaNet *d = block->details;
    int64_t keys = d->keys.count, values = d->values.count, mixed = values * d->values.width;
    ASSERT(block->linear_count == block->inputs + 2 * d->pairs + 1);
    int64_t width = check_pairs(m, block->linear + block->inputs, d->pairs);
    for (int64_t i = 0; i < block->inputs; i++) {
        check_matrix(block->linear + i, block->linear[i].out, m->hidden);
        width += block->linear[i].out;
    }
    ASSERT(width == d->width);
    check_matrix(block->linear + block->linear_count - 1, m->hidden, mixed);
    if (d->by_channel) check_heads(&d->decay, d->width);
    ASSERT(!d->by_channel || (keys == values && d->decay.width == d->keys.width));
    check_heads(&d->queries, d->width), check_heads(&d->keys, d->width);
    check_heads(&d->values, d->width), check_heads(&d->gates, d->width);
    ASSERT(keys > 0 && values % keys == 0 && d->queries.count == keys);
    ASSERT(d->queries.width == d->keys.width && d->gates.width == d->values.width);
    for (int64_t head = 0; head < values; head++) {
        ASSERT(head_begin(&d->beta, head) < d->width && head_begin(&d->decay, head) < d->width);
    }
    check_convolution(&d->convolution, 2 * keys * d->keys.width + mixed);
    check_norm(&d->norm, mixed);
    ASSERT(d->rate && d->time_bias && d->norm.group == d->values.width);
}

static void check_mamba(const Model *m, const Block *block) {
    const Mamba *x = block->details;
    int64_t inner = x->heads * x->width, channels = inner + 2 * x->groups * x->state;
    check_recurrent(m, block, inner + channels + x->heads, inner);
    ASSERT(x->width % LANES == 0 && x->state > 0 && x->state % 4 == 0);
    ASSERT(x->groups > 0 && x->heads % x->groups == 0);
    check_convolution(&x->convolution, channels);
    check_norm(&x->norm, inner);
    ASSERT(x->rate && x->time_bias && x->skip);
    ASSERT(!x->norm.count || x->norm.group % LANES == 0);
}

static void check_rwkv7(const Model *m, const Block *block) {
    const Rwkv7Time *r = block->details;
    ASSERT(r->heads > 0 && r->width > 0 && r->width % LANES == 0);
    ASSERT(r->heads * r->width == m->hidden && block->norm.count == m->hidden);
    ASSERT(r->pairs == (r->is_first ? 3 : 4) && block->linear_count == 4 + 2 * r->pairs);
    for (int64_t i = 0; i < 3; i++) check_matrix(block->linear + i, m->hidden, m->hidden);
    ASSERT(check_pairs(m, block->linear + 3, r->pairs) == r->pairs * m->hidden);
    check_matrix(block->linear + 3 + 2 * r->pairs, m->hidden, m->hidden);
    check_norm(&r->norm, m->hidden);
    ASSERT(r->norm.group == r->width && r->mixes && r->key_scale && r->key_mix && r->bonus);
}

static void check_rwkv(const Model *m, const Block *block) {
    int is_time = block->kind == RWKV_TIME;
    int64_t inner = is_time ? m->hidden : block->linear->out;
    ASSERT(m->hidden % LANES == 0 && block->norm.count == m->hidden);
    int has_receptance = is_time || block->linear_count == 3;
    ASSERT(block->linear_count == (is_time ? 4 : 2 + has_receptance));
    check_matrix(block->linear, inner, m->hidden);
    if (has_receptance) check_matrix(block->linear + 1, m->hidden, m->hidden);
    check_matrix(block->linear + 1 + has_receptance, m->hidden, inner);
    if (is_time) check_matrix(block->linear + 3, m->hidden, m->hidden);
}

static void check_expert(const Model *m, const Matrix *linear, int64_t inputs, int64_t inner) {
    ASSERT(inputs == 1 || inputs == 2);
    for (int64_t i = 0; i < inputs; i++) check_matrix(linear + i, inner, m->hidden);
    check_matrix(linear + inputs, m->hidden, inner);
}

static void check_experts(const Model *m, const Block *block) {
    const Experts *e = block->details;
    int64_t shared = e->shared_inner ? e->shared_inputs + 1 : 0;
    ASSERT(e->router && e->experts > 0 && e->groups > 0 && e->experts % e->groups == 0);
    ASSERT(e->top_groups <= e->groups && e->group_members <= e->experts / e->groups);
    ASSERT(e->top > 0 && e->top <= e->experts / e->groups * e->top_groups);
    ASSERT(block->linear_count == shared + e->experts * (e->inputs + 1));
    check_norm(&e->router_norm, m->hidden), check_norm(&e->expert_norm, m->hidden);
    check_norm(&e->shared_norm, m->hidden), check_norm(&e->expert_post_norm, m->hidden);
    check_norm(&e->shared_post_norm, m->hidden);
    ASSERT(!has_input_norms(e) || !block->norm.count);
    if (shared) check_expert(m, block->linear, e->shared_inputs, e->shared_inner);
    for (int64_t i = 0; i < e->experts; i++)
        check_expert(m, block->linear + shared + i * (e->inputs + 1), e->inputs, e->inner);
}

static void check_layer_input(const Model *m, const Block *block) {
    const LayerInput *details = block->details;
    const LayerInputs *inputs = m->layer_inputs;
    ASSERT(inputs && inputs->embedding && inputs->vocabulary > 0);
    check_matrix(&inputs->linear, inputs->linear.out, m->hidden);
    check_norm(&inputs->norm, inputs->linear.out);
    ASSERT(block->inputs == 1 && block->linear_count == 2);
    ASSERT(details->first >= 0 && details->first + block->linear->out <= inputs->linear.out);
    check_matrix(block->linear, block->linear->out, m->hidden);
    check_matrix(block->linear + 1, m->hidden, block->linear->out);
    ASSERT(!details->scale || !block->norm.count);
    check_norm(&details->stream_norm, m->hidden);
}

static void check_laurel(const Model *m, const Block *block) {
    const Laurel *laurel = block->details;
    ASSERT(block->linear_count == 2 && !block->post_norm.count);
    check_matrix(block->linear, block->linear->out, m->hidden);
    check_matrix(block->linear + 1, m->hidden, block->linear->out);
    check_norm(&laurel->norm, m->hidden);
}

/* The streams that a model opens; 0: none. */
static int64_t streams_of(const Model *m) {
    for (int64_t i = 0; i < m->blocks; i++)
        if (m->block[i].kind == OPEN_STREAMS) return m->block[i].linear_count + 1;
    return 0;
}

static void check_streams(const Model *m, const Block *block) {
    const MixStreams *mix = block->details;
    int64_t streams = streams_of(m);
    ASSERT(streams > 0 && streams <= MAX_STREAMS && !block->norm.count && !block->post_norm.count);
    if (block->kind != MIX_STREAMS) {
        ASSERT(block->linear_count == streams - 1);
        for (int64_t i = 0; i < block->linear_count; i++)
            check_matrix(block->linear + i, m->hidden, m->hidden);
        return;
    }
    ASSERT(mix->streams == streams && mix->router && mix->coefficients && mix->norm.count);
    check_norm(&mix->norm, m->hidden);
}

static void check_block(const Model *m, const Block *block) {
    const Convolution *c = block->details;
    check_norm(&block->norm, m->hidden), check_norm(&block->post_norm, m->hidden);
    check_norm(&block->stream_norm, m->hidden);
    switch (block->kind) {
    case ATTENTION: check_attention(m, block); break;
    case MEMORY: check_memory(m, block); break;
    case LATENT_ATTENTION: check_latent(m, block); break;
    case MLP: check_mlp(m, block); break;
    case LAYER_INPUT: check_layer_input(m, block); break;
    case EXPERTS: check_experts(m, block); break;
    case LAUREL: check_laurel(m, block); break;
    case OPEN_STREAMS:
    case MIX_STREAMS:
    case JOIN_STREAMS: check_streams(m, block); break;
    case DELTA_NET: check_delta_net(m, block); break;
    case RWKV7_TIME: check_rwkv7(m, block); break;
    case MAMBA: check_mamba(m, block); break;
    case SHORT_CONVOLUTION:
        check_recurrent(m, block, 3 * c->channels, c->channels);
        check_convolution(c, c->channels);
        break;
    default: check_rwkv(m, block);
    }
}

static void check_model(const Model *m) {
    ASSERT(m->blocks > 0 && m->hidden > 0);
    ASSERT(m->encoder_blocks >= 0 && m->encoder_blocks < m->blocks);
    ASSERT(m->vocabulary > 0 && m->vocabulary <= INT32_MAX);
    ASSERT(m->block);
    if (!m->embedding) check_matrix(&m->tokens, m->vocabulary, m->hidden);
    check_norm(&m->norm, m->hidden);
    check_matrix(&m->head, m->vocabulary, m->hidden);
    for (int64_t i = 0; i < m->blocks; i++) check_block(m, m->block + i);
}

static void check_adapter(const Model *m, const Lora *adapter) {
    for (int64_t l = 0; l <= m->linears; l++) {
        ASSERT(adapter[l].rank >= 0 && adapter[l].rank % 2 == 0);
        ASSERT(!adapter[l].rank || (adapter[l].a && adapter[l].b));
    }
}

/* encodes: see Pass. */
static void check_sequence(const Model *m, const SequenceRows *sequence, int encodes) {
    int64_t begin = encodes ? 0 : m->encoder_blocks, end = encodes ? m->encoder_blocks : m->blocks;
    ASSERT(sequence->rows > 0 && sequence->past >= 0 && !(encodes && sequence->past));
    ASSERT(sequence->memory >= 0 && sequence->memory <= sequence->memory_capacity);
    ASSERT(sequence->memory_capacity % SPAN == 0);
    ASSERT(sequence->context >= 0 && sequence->context <= sequence->past + sequence->rows);
    ASSERT(!sequence->past || sequence->context <= sequence->past);
    ASSERT(encodes || !m->encoder_blocks || sequence->memory > 0);
    ASSERT(sequence->past + sequence->rows <= sequence->capacity);
    ASSERT(sequence->capacity % SPAN == 0 && (sequence->is_int8 | 1) == 1);
    for (int64_t i = 0; i < sequence->rows; i++)
        ASSERT(sequence->ids[i] >= 0 && sequence->ids[i] < m->vocabulary);
    for (int64_t i = begin; i < end; i++) {
        const Attention *a =
            m->block[i].kind == MEMORY ? m->block[i].details : attention_of(m->block + i);
        if (a) ASSERT(sequence->keys[a->cache] && sequence->values[a->cache]);
        if (m->block[i].kind >= DELTA_NET && m->block[i].kind <= RWKV7_TIME)
            ASSERT(sequence->states[i]);
    }
    for (int64_t a = 0; a < sequence->adapter_count; a++) check_adapter(m, sequence->adapters[a]);
}
