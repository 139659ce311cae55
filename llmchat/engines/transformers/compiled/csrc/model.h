/* The structures that the caller passes: a model, adapters, and the sequences of one pass.
 *
 * structs.py has the same fields in the same order. All pointers belong to the caller. */
#pragma once
#include "assertions.h"
#include "attention_kernel.h"
#include "vectors.h"

/* The linears of a layer, in order. */
enum { Q_PROJ, K_PROJ, V_PROJ, O_PROJ, GATE_PROJ, UP_PROJ, DOWN_PROJ, LINEARS };

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

/* A low-rank adapter of one linear (Hu et al. 2021): y += strength * scale * B A x. */
typedef struct {
    const bf16 *a; /* [rank, in] */
    const bf16 *b; /* [out / 16, rank / 2, 16, 2]: as products take it, outputs padded to 32 */
    int64_t rank;  /* even, perhaps padded with zeros; 0 where the linear is not adapted */
    float scale;
} Lora;

/* New tokens of one sequence. keys, values: for each layer [kv_heads, capacity, head_dim] in the
 * order of kv_layout.h, `past` positions in use. adapters: each [layers * LINEARS + 1], the output
 * head last. all_logits: logits for every row, not only the last. */
typedef struct {
    const int32_t *ids;
    bf16 *const *keys, *const *values;
    const Lora *const *adapters;
    const float *strengths;
    int64_t rows, past, capacity, adapter_count, all_logits;
} SequenceRows;

/* What the caller must guarantee; the checked build verifies it. */
static void check_matrix(const Matrix *matrix, int64_t out, int64_t in) {
    ASSERT(matrix->weight && matrix->scale && matrix->out == out && matrix->in == in);
}

static void check_model(const Model *m) {
    int64_t queries = m->heads * m->head_dim, keys = m->kv_heads * m->head_dim;
    ASSERT(m->layers > 0 && m->hidden > 0 && m->inner > 0);
    ASSERT(m->vocabulary > 0 && m->vocabulary <= INT32_MAX);
    ASSERT(m->kv_heads > 0 && m->heads % m->kv_heads == 0);
    ASSERT(m->heads / m->kv_heads <= QUERY_TILE);
    ASSERT(m->head_dim > 0 && m->head_dim % LANES == 0);
    ASSERT(m->embedding && m->frequencies && m->norm && m->layer);
    check_matrix(&m->head, m->vocabulary, m->hidden);
    for (int64_t i = 0; i < m->layers; i++) {
        const Layer *layer = m->layer + i;
        ASSERT(layer->attention_norm && layer->mlp_norm);
        check_matrix(layer->linear + Q_PROJ, queries, m->hidden);
        check_matrix(layer->linear + K_PROJ, keys, m->hidden);
        check_matrix(layer->linear + V_PROJ, keys, m->hidden);
        check_matrix(layer->linear + O_PROJ, m->hidden, queries);
        check_matrix(layer->linear + GATE_PROJ, m->inner, m->hidden);
        check_matrix(layer->linear + UP_PROJ, m->inner, m->hidden);
        check_matrix(layer->linear + DOWN_PROJ, m->hidden, m->inner);
    }
}

static void check_sequence(const Model *m, const SequenceRows *sequence) {
    ASSERT(sequence->rows > 0 && sequence->past >= 0);
    ASSERT(sequence->past + sequence->rows <= sequence->capacity);
    ASSERT(sequence->capacity % SPAN == 0);
    for (int64_t i = 0; i < sequence->rows; i++)
        ASSERT(sequence->ids[i] >= 0 && sequence->ids[i] < m->vocabulary);
    for (int64_t layer = 0; layer < m->layers; layer++)
        ASSERT(sequence->keys[layer] && sequence->values[layer]);
    for (int64_t a = 0; a < sequence->adapter_count; a++)
        for (int64_t l = 0; l <= m->layers * LINEARS; l++) {
            const Lora *lora = sequence->adapters[a] + l;
            ASSERT(lora->rank >= 0 && lora->rank % 2 == 0);
            ASSERT(!lora->rank || (lora->a && lora->b));
        }
}
