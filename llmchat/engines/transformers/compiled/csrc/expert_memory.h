/* What a mixture of experts keeps during a pass, see expert_groups.h. */
#pragma once
#include "activations.h"
#include "model.h"

/* The places of one expert in a pass. linear: its matrices, number: of the first one in the model.
 * inner_first: where its rows of inner activations begin. */
typedef struct {
    const Matrix *linear;
    const Activation *activation;
    int64_t number, inputs, inner, first, count, inner_first;
    int is_shared;
} ExpertGroup;

/* Memory for the experts of one block. [R] rows, [P] places. inner: [P, width of an expert], then
 * [R, width of the shared expert]; acts, residual: the same, quantised.
 *
 * chosen decides how many units of work there are. A thread that has fallen behind reads it when
 * others are in later blocks, and must find the same numbers: each block has its own. */
typedef struct {
    float *logits;          /* [R, experts] of the router */
    int32_t *chosen;        /* [blocks, R, top] experts */
    float *weights;         /* [R, top] */
    float *shared;          /* [R] factors of the shared expert */
    float *inner, *results; /* results: [P, hidden] */
    float *router_rows, *expert_rows; /* [R, hidden], normed, where a block has such norms */
    bf16 *lora_hidden;      /* [P, ranks] */
    Activations input, acts, residual;
} ExpertMemory;

/* Memory of one thread. groups: [routed], then that of the shared expert. */
typedef struct {
    ExpertGroup *groups;
    int64_t group_count, routed;
    int32_t *counts;           /* [experts] */
    int32_t *place_of;         /* [R, top] */
    int32_t *row_of, *slot_of; /* [P] */
    float *scores;             /* [3 * experts] */
    int8_t *taken;             /* [experts] */
    float *weighted_row;       /* [hidden] */
    int reads_rows;            /* whether experts read the rows as they were prepared */
    const float *rows, *router_rows, *expert_rows; /* what the block and its parts read */
} ExpertWorker;
