/* What the caller must guarantee; the checked build verifies it. */
#pragma once
#include "attention_kernel.h"
#include "model.h"

static void check_matrix(const Matrix *matrix, int64_t out, int64_t in) {
    ASSERT(matrix->weight && matrix->scale && matrix->out == out && matrix->in == in);
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
    ASSERT(a->rotary < m->rotaries && a->cache >= 0 && a->cache < m->blocks);
    ASSERT(a->window >= 0 && a->chunk >= 0);
}

static void check_mlp(const Model *m, const Block *block) {
    ASSERT(block->inputs == 1 || block->inputs == 2);
    ASSERT(block->linear_count == block->inputs + 1);
    int64_t inner = block->linear->out;
    for (int64_t i = 0; i < block->inputs; i++) check_matrix(block->linear + i, inner, m->hidden);
    check_matrix(block->linear + block->inputs, m->hidden, inner);
}

static void check_model(const Model *m) {
    ASSERT(m->blocks > 0 && m->hidden > 0);
    ASSERT(m->vocabulary > 0 && m->vocabulary <= INT32_MAX);
    ASSERT(m->embedding && m->block);
    check_norm(&m->norm, m->hidden);
    check_matrix(&m->head, m->vocabulary, m->hidden);
    for (int64_t i = 0; i < m->blocks; i++) {
        const Block *block = m->block + i;
        check_norm(&block->norm, m->hidden), check_norm(&block->post_norm, m->hidden);
        if (block->kind == ATTENTION) check_attention(m, block);
        if (block->kind == MLP) check_mlp(m, block);
    }
}

static void check_adapter(const Model *m, const Lora *adapter) {
    for (int64_t l = 0; l <= m->linears; l++) {
        ASSERT(adapter[l].rank >= 0 && adapter[l].rank % 2 == 0);
        ASSERT(!adapter[l].rank || (adapter[l].a && adapter[l].b));
    }
}

static void check_sequence(const Model *m, const SequenceRows *sequence) {
    ASSERT(sequence->rows > 0 && sequence->past >= 0);
    ASSERT(sequence->past + sequence->rows <= sequence->capacity);
    ASSERT(sequence->capacity % SPAN == 0);
    for (int64_t i = 0; i < sequence->rows; i++)
        ASSERT(sequence->ids[i] >= 0 && sequence->ids[i] < m->vocabulary);
    for (int64_t i = 0; i < m->blocks; i++)
        if (m->block[i].kind == ATTENTION) {
            int64_t cache = attention_of(m->block + i)->cache;
            ASSERT(sequence->keys[cache] && sequence->values[cache]);
        }
    for (int64_t a = 0; a < sequence->adapter_count; a++) check_adapter(m, sequence->adapters[a]);
}
