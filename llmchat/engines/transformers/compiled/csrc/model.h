/* The structures that the caller passes: a model as a list of blocks, adapters, and the sequences
 * of one pass.
 *
 * structs.py has the same fields in the same order. All pointers belong to the caller. families/
 * blocks.py says what each block computes. */
#pragma once
#include "assertions.h"
#include "vectors.h"

enum { SCALE_F16, SCALE_BF16, SCALE_F32 };
enum { NO_SCALES, UNSIGNED_SCALES, SIGNED_SCALES, SHARED_BYTES };

/* How weights are grouped, see quantised/packed.py. halves: 1 for groups of 32, 2 for groups of 16;
 * block_groups: groups of a block. scale_type, scales: of the enumerations above. */
typedef struct {
    int32_t bits, halves, block_groups, scale_type, scales;
    int32_t has_minimum, has_minima, has_zeros, zero, has_table;
} Grouping;

/* Rows in 8 bits, or, with a grouping, of groups: `weight` is what packed.py makes, block_bytes of
 * it for each 16 rows; there is no scale. order: column c is input order[c]; or NULL. */
typedef struct {
    const int8_t *weight; /* [out, in] */
    const float *scale;   /* [out], padded to 32: a weight is int8 * scale */
    const float *bias;    /* the same, or NULL */
    const Grouping *grouping;
    const int32_t *order;
    int64_t out, in, block_bytes;
} Matrix;

/* Of each `group` of `count` numbers. weight, bias: [count], or [group] for all groups alike
 * (is_shared); bias may be NULL. subtracts_mean: a layer norm, otherwise an RMS norm. count = 0: no
 * norm. */
typedef struct {
    const float *weight, *bias;
    int64_t count, group;
    float eps;
    int32_t subtracts_mean, is_shared;
} Norm;

/* Head h begins at start + h / together * group_stride + h % together * stride. */
typedef struct {
    int64_t count, width, start, stride, together, group_stride;
} Heads;

/* The positions that a rotary embedding counts, see families/pieces.py. */
enum { COUNTS_ALL, COUNTS_CONTEXT, COUNTS_ANSWER };

/* Of `half` pairs of a head from number `first` on. long_*: for texts that are long, see
 * SequenceRows. */
typedef struct {
    const float *frequencies, *long_frequencies; /* [half] */
    int64_t half, first;
    float scale, long_scale;
    int32_t is_interleaved, counts;
} Rotary;

/* The last two are not those of an MLP. */
enum { SILU, GELU, GELU_TANH, RELU, RELU2, XIELU, CLAMPED_SWIGLU, SIGMOID_OF, TANH };

/* a, b: limit and alpha of CLAMPED_SWIGLU; alpha of positive and of negative numbers of XIELU.
 * gate_scale: a factor of the gate. */
typedef struct {
    int64_t kind;
    float a, b, gate_scale;
} Activation;

/* The kinds of blocks. The numbers are those of structs.py. */
enum {
    ATTENTION,
    MLP,
    DELTA_NET,
    MAMBA,
    SHORT_CONVOLUTION,
    RWKV_TIME,
    RWKV_CHANNEL,
    RWKV7_TIME,
    EXPERTS,
    LAYER_INPUT,
    LATENT_ATTENTION,
    LAUREL,
    OPEN_STREAMS,
    MIX_STREAMS,
    JOIN_STREAMS,
    MEMORY
};

#define MAX_STREAMS 8

/* x = stream_norm(x), x += scale * post_norm(block(norm(x))), then x *= factor. linear:
 * [linear_count], of which the first `inputs` read the same; first_linear: the number of the first
 * one in the model, for adapters. saves: x is saved before the block; reads_saved: it reads what
 * was saved. details: a structure of its kind. */
typedef struct {
    int64_t kind, first_linear, linear_count, inputs;
    const Matrix *linear;
    const void *details;
    Norm norm, post_norm, stream_norm;
    float scale, factor;
    int32_t saves, reads_saved;
} Block;

/* What a query sees: positions up to its own; all of a text that is read at once; the memory that
 * an encoder has left of its text; or positions up to its own and all of the context. */
enum { SEES_BEFORE, SEES_ALL, SEES_MEMORY, SEES_CONTEXT };

/* The details of an ATTENTION block, and of a MEMORY block, which has no queries. width: of the
 * outputs of all its inputs. gates: count = 0 for none. rotary, second_rotary: in Model, or -1.
 * cache: the number of the block whose keys and values it uses. sinks, slopes: [heads] or NULL.
 * distances: [heads, 2 * (reach + SPAN)] or NULL, what is added to the score of a key at each
 * distance behind its query, from -reach - SPAN on. window, chunk, softcap, clip: 0 for none.
 * position_*: see families/blocks.py, beta = 0 for none. */
typedef struct {
    int64_t width;
    Heads queries, keys, values, gates;
    Norm query_norm, key_norm, value_norm;
    int64_t rotary, second_rotary, cache, window, chunk, sees, reach;
    const float *sinks, *slopes, *distances;
    float scale, softcap, clip;
    float position_beta, position_length, position_shift;
    int32_t norms_rotated, shares;
} Attention;

/* The details of a LATENT_ATTENTION block. Its linears: of queries, one or, with a query_norm, two;
 * of the latent numbers; of the shared part of keys; `up`, of keys and values from latent numbers;
 * the output. attention: of one head of keys, whose first numbers are its values. to_latent: of
 * each head [latent, plain], to_values: [value_width, latent], both parts of `up`. */
typedef struct {
    Attention attention;
    Norm query_norm, latent_norm;
    int64_t plain, value_width;
    const Matrix *to_latent, *to_values;
} LatentAttention;

/* The details of an MLP block: `inputs` matrices (gate and up, or up alone), then the output. Where
 * it cuts, only gates above their mean + cutoff * deviation are kept. */
typedef struct {
    Activation activation;
    float cutoff;
    int32_t cuts;
} Mlp;

/* A causal convolution of each of `channels`. weight: [kernel, channels]; bias: [channels] or NULL.
 * Also the details of a SHORT_CONVOLUTION block. */
typedef struct {
    const float *weight, *bias;
    int64_t channels, kernel;
} Convolution;

/* The details of a DELTA_NET block. width: of the outputs of all its inputs and of its `pairs` of
 * linears, whose low ones follow the inputs, then the high ones. rate: exp(log_decay), [heads of
 * values]; time_bias: as many, or by channel of keys. A state is that of the convolution, then
 * [heads of values, key width, value width]. */
typedef struct {
    int64_t width;
    Heads queries, keys, values, gates, beta, decay;
    Convolution convolution;
    const float *rate, *time_bias;
    Norm norm;
    int64_t pairs;
    int32_t by_channel, sigmoid_gates;
} DeltaNet;

/* The details of a MAMBA block. rate, time_bias, skip: [heads]. The factors of x, B and C are in
 * the convolution. A state is that of the convolution, then [heads, state, width]. */
typedef struct {
    int64_t heads, width, state, groups;
    Convolution convolution;
    const float *rate, *time_bias, *skip;
    Norm norm;
    float gate_factor, time_factor, time_least, time_most;
    int32_t gate_after;
} Mamba;

/* The details of an RWKV_TIME block. decay: exp(time_decay), first: [hidden]; mixes: [3, hidden].
 * A state is [4, hidden]. */
typedef struct {
    const float *decay, *first, *mixes;
} RwkvTime;

/* The details of an RWKV_CHANNEL block. mixes: [2, hidden], or [1, hidden] without a receptance. A
 * state is [hidden]. */
typedef struct {
    const float *mixes;
} RwkvChannel;

/* The details of an RWKV7_TIME block. Its linears: receptance, key, value, `pairs` low ones, as
 * many high ones, output. mixes: [6, hidden], the part of a token itself; key_scale, key_mix,
 * bonus: [hidden]. is_first: its values are those that later blocks mix in. A state is [hidden],
 * then [heads, width, width]. */
typedef struct {
    int64_t heads, width, pairs;
    const float *mixes, *key_scale, *key_mix, *bonus;
    Norm norm;
    int32_t is_first;
} Rwkv7Time;

/* How the router's logits become weights. */
enum { SOFTMAX, SOFTMAX_OF_TOP, SIGMOID };

/* The details of an EXPERTS block. Its linears: those of the shared expert (shared_inner = 0: there
 * is none), then of each expert, each `inputs` matrices and the output. router: [experts, hidden];
 * router_bias, correction, expert_scale: [experts] or NULL; shared_gate: [hidden] or NULL. inner:
 * the width of an expert. The norms have count = 0 where there is none; with any of them, the block
 * has no norm of its own. The other fields are those of families/blocks.py. */
typedef struct {
    const float *router, *router_bias, *correction, *expert_scale, *shared_gate;
    int64_t experts, top, inner, inputs, shared_inner, shared_inputs;
    int64_t score, groups, top_groups, group_members;
    Activation activation, shared_activation;
    Norm router_norm, expert_norm, expert_post_norm, shared_norm, shared_post_norm;
    float sum_offset, factor;
    int32_t normalised, weights_input;
} Experts;

/* The details of a LAYER_INPUT block. first: of its numbers in the inputs of all layers. scale:
 * [hidden], factors of what it reads, or NULL. With a stream_norm, the result is added to all
 * streams but x. */
typedef struct {
    int64_t first;
    Activation activation;
    const float *scale;
    Norm stream_norm;
} LayerInput;

/* The details of a LAUREL block. Its linears: down and up. */
typedef struct {
    Norm norm;
} Laurel;

/* The details of a MIX_STREAMS block, which has no linears. router: [streams, hidden];
 * coefficients: [streams or streams * streams, streams]. */
typedef struct {
    const float *router, *coefficients;
    int64_t streams;
    Norm norm;
    int32_t corrects;
} MixStreams;

/* See families/plan.py. embedding: [vocabulary, linear.out]. */
typedef struct {
    const bf16 *embedding;
    int64_t vocabulary;
    Matrix linear;
    Norm norm;
    float scale, linear_scale, factor;
} LayerInputs;

/* linears: of all blocks, then that of layer_inputs (NULL where there are none); the head has the
 * next number. encoder_blocks: so many of the first blocks are those of an encoder. */
typedef struct {
    int64_t blocks, encoder_blocks, linears, hidden, vocabulary, rotaries;
    const bf16 *embedding;  /* [vocabulary, hidden], or NULL: `tokens`, a grouped matrix */
    const float *positions; /* learned, that of position 0 first; or NULL */
    const Rotary *rotary;
    const Block *block;
    Norm embedding_norm, norm;
    Matrix head, tokens;
    float embedding_scale, logit_scale, logit_softcap;
    const LayerInputs *layer_inputs;
} Model;

/* A low-rank adapter of one linear (Hu et al. 2021): y += strength * scale * B A x. */
typedef struct {
    const bf16 *a; /* [rank, in] */
    const bf16 *b; /* [out / 16, rank / 2, 16, 2]: as products take it, outputs padded to 32 */
    int64_t rank;  /* even, perhaps padded with zeros; 0 where the linear is not adapted */
    float scale;
} Lora;

/* New tokens of one sequence. For each block: keys, values: [heads, capacity, width] in the order
 * of kv_layout.h or, with is_int8, of kv_int8.h, `past` positions in use; states: what a recurrent
 * block remembers; NULL where it has none. adapters: each [linears + 1], the output head last.
 * all_logits: logits for every row, not only the last. is_long: beyond the length for which
 * `frequencies` were trained. context: so many of the first tokens see each other, in a pass that
 * reads all of them. memory: the positions that an encoder has read of the text, whose keys and
 * values have room for memory_capacity. */
typedef struct {
    const int32_t *ids;
    void *const *keys, *const *values;
    float *const *states;
    const Lora *const *adapters;
    const float *strengths;
    int64_t rows, past, capacity, adapter_count, all_logits, is_long, context;
    int64_t memory, memory_capacity, is_int8;
} SequenceRows;

/* The decays and betas of a row, see delta_net.h. */
static int64_t decays_of(const DeltaNet *d) {
    int64_t heads = d->values.count;
    return heads + (d->by_channel ? 2 * heads * d->keys.width : heads);
}

static int64_t head_begin(const Heads *heads, int64_t head) {
    return heads->start + head / heads->together * heads->group_stride +
           head % heads->together * heads->stride;
}

/* Whether the gates of an MLP are cut. */
static int cuts_gates(const Block *block) {
    return block->kind == MLP && ((const Mlp *)block->details)->cuts;
}

/* Whether experts, their router or the shared expert read norms of their own. */
static int has_input_norms(const Experts *e) {
    return e->router_norm.count || e->expert_norm.count || e->shared_norm.count;
}

/* The attention in a block, or NULL. */
static const Attention *attention_of(const Block *block) {
    int attends = block->kind == ATTENTION || block->kind == LATENT_ATTENTION;
    return attends ? block->details : NULL;
}

/* The heads of queries that share keys. */
static int64_t sharing_heads(const Attention *a) { return a->queries.count / a->keys.count; }

/* The positions that a block holds of a sequence, those of the new rows included. */
static int64_t held_positions(const Attention *a, const SequenceRows *sequence) {
    return a->sees == SEES_MEMORY ? sequence->memory : sequence->past + sequence->rows;
}

static int64_t capacity_of(const Attention *a, const SequenceRows *sequence) {
    return a->sees == SEES_MEMORY ? sequence->memory_capacity : sequence->capacity;
}

/* Where the positions end that a query sees. */
static int64_t seen_end(const Attention *a, const SequenceRows *sequence, int64_t position) {
    if (a->sees == SEES_CONTEXT) return MAX(position + 1, sequence->context);
    return a->sees == SEES_BEFORE ? position + 1 : held_positions(a, sequence);
}

/* The first position that a query sees. */
static int64_t first_seen(const Attention *a, int64_t position) {
    int64_t first = a->chunk ? position / a->chunk * a->chunk : 0;
    return a->window ? MAX(first, position + 1 - a->window) : first;
}
