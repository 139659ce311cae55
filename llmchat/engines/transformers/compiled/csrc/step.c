/* One forward pass of a model, given as a list of blocks, over the new tokens of any number of
 * sequences, on the CPU, with row-wise int8 weights. The whole library is this translation unit.
 *
 * Row invariance: the numbers of a token do not depend, to the bit, on what else is in the pass.
 * Every sum is taken in an order that follows from the token's own position. So a cached prefix
 * equals a fresh prefill, prompt-lookup decoding equals plain decoding, and a sequence in a batch
 * equals the sequence alone.
 *
 * Not here: loading, quantisation of weights, tokens, the growth of caches (Python does these). */
#include "assertions.h"
#include "thread_team.h"
#include "openmp.h"
#include "model.h"
#include "checks.h"
#include "layout.h"
#include "linear.h"
#include "prepare.h"
#include "attention.h"
#include "mlp.h"
#include "experts.h"
#include "latent.h"
#include "delta_net.h"
#include "mamba.h"
#include "rwkv.h"
#include "rwkv7.h"
#include "streams.h"
#include "layer_inputs.h"
#include "sampling.h"
#include "probes.h"

/* Keep the stream as it is now, for the blocks that read the same. */
static void save_stream(Worker *worker) {
    const Pass *pass = worker->pass;
    int64_t hidden = pass->model->hidden;
    loop_begin(&worker->cursor, pass->rows, 1);
    for (int64_t row; (row = loop_next(&worker->cursor)) >= 0;)
        memcpy(pass->saved + row * hidden, pass->x + row * hidden, hidden * sizeof *pass->x);
    barrier(&worker->cursor);
}

/* Norm the stream itself. */
static void norm_stream(Worker *worker, const Norm *norm) {
    const Pass *pass = worker->pass;
    loop_begin(&worker->cursor, pass->rows, 1);
    for (int64_t row; (row = loop_next(&worker->cursor)) >= 0;)
        norm_group(norm, pass->x + row * pass->model->hidden, 0);
    barrier(&worker->cursor);
}

static void run_block(Worker *worker, const Block *block) {
    if (block->stream_norm.count) norm_stream(worker, &block->stream_norm);
    if (block->saves) save_stream(worker);
    switch (block->kind) {
    case ATTENTION: run_attention(worker, block); break;
    case MEMORY: run_memory(worker, block); break;
    case LATENT_ATTENTION: run_latent_attention(worker, block); break;
    case MLP: run_mlp(worker, block); break;
    case EXPERTS: run_experts(worker, block); break;
    case DELTA_NET: run_delta_net(worker, block); break;
    case MAMBA: run_mamba(worker, block); break;
    case SHORT_CONVOLUTION: run_short_convolution(worker, block); break;
    case RWKV_TIME: run_rwkv_time(worker, block); break;
    case RWKV_CHANNEL: run_rwkv_channel(worker, block); break;
    case RWKV7_TIME: run_rwkv7_time(worker, block); break;
    case LAYER_INPUT: run_layer_input(worker, block); break;
    case LAUREL: run_laurel(worker, block); break;
    case OPEN_STREAMS: run_open_streams(worker, block); break;
    case MIX_STREAMS: run_mix_streams(worker, block); break;
    case JOIN_STREAMS: run_join_streams(worker, block); break;
    }
}

/* After an encoder: quantisation turns NaN and infinity into numbers, and what is made of them must
 * not look valid. Logit 0 of a sequence becomes NaN, otherwise zero. */
static void report_invalid(const Pass *pass) {
    int64_t hidden = pass->model->hidden;
    for (int64_t i = 0; i < pass->sequence_count; i++) {
        int is_valid = !pass->has_invalid[i];
        const float *x = pass->x + pass->first_row[i] * hidden;
        for (int64_t row = 0; row < pass->sequences[i].rows; row++)
            is_valid &= sum_of_squares(x + row * hidden, hidden, 0.0f) < __builtin_inff();
        pass->logits[i] = is_valid ? 0.0f : __builtin_nanf("");
    }
}

/* No pass has more parallel loops. */
static int64_t most_loops(const Model *model) {
    int64_t loops = 12;
    for (int64_t i = 0; i < model->blocks; i++)
        loops += model->block[i].kind == RWKV7_TIME ? 48 : 24;
    return loops;
}

static void run_pass(Worker *worker) {
    const Pass *pass = worker->pass;
    const Model *m = pass->model;
    loop_begin(&worker->cursor, pass->rows, 1);
    for (int64_t row; (row = loop_next(&worker->cursor)) >= 0;) embed_row(pass, row);
    barrier(&worker->cursor);
    if (m->layer_inputs) find_layer_inputs(worker);
    int64_t first = pass->encodes ? 0 : m->encoder_blocks;
    int64_t end = pass->encodes ? m->encoder_blocks : m->blocks;
    for (int64_t index = first; index < end; index++) run_block(worker, m->block + index);
    if (pass->encodes) {
        if (!worker->cursor.index) report_invalid(pass);
        return;
    }
    prepare_input(worker, (Source){.kind = FROM_FINAL_NORM,
                                   .two_term = 1,
                                   .width = m->hidden,
                                   .rows = pass->x,
                                   .norm = &m->norm});
    run_linears(worker, &(Linears){.matrices = &m->head,
                                   .linear = m->linears,
                                   .count = 1,
                                   .epilogue = STORE,
                                   .out = pass->logits,
                                   .stride = m->vocabulary,
                                   .final = 1});
}

typedef struct {
    const Pass *pass;
    const OpenMP *openmp;
    Loop *loops;
    atomic_int arrived;
    char *memory; /* of the threads, `bytes_each` */
    int64_t bytes_each;
} Team;

static void run_member(void *data) {
    Team *team = data;
    int index = atomic_fetch_add(&team->arrived, 1);
    Worker worker = {.pass = team->pass};
    worker.cursor =
        (LoopCursor){.loop = team->loops, .threads = team_size(team->openmp), .index = index};
    Arena arena = {team->memory + index * team->bytes_each, 0};
    lay_out_worker(&worker, &arena);
    run_pass(&worker);
}

static int64_t loop_bytes(const Model *model, int threads) {
    return most_loops(model) * LOOP_SIZE(threads);
}

/* Bytes of workspace: counters of loops and memory that is shared, then that of each thread. */
static int64_t measure(Pass *pass, int threads, int64_t *shared, int64_t *each) {
    Arena arena = {NULL, 0}, own = {NULL, 0};
    lay_out_shared(pass, &arena);
    Worker worker = {.pass = pass};
    lay_out_worker(&worker, &own);
    *shared = loop_bytes(pass->model, threads) + arena.used, *each = own.used;
    return *shared + *each * threads;
}

/* Bytes of workspace that llmchat_step needs for these sequences, encoded or not. */
int64_t llmchat_workspace_bytes(const Model *model, const SequenceRows *sequences, int64_t count,
                                int threads) {
    int64_t shared, each;
    Pass pass = {.model = model, .sequences = sequences, .sequence_count = count};
    return measure(&pass, threads, &shared, &each);
}

/* Run the new tokens of the sequences and append their keys and values to the caches.
 * logits: [rows that want them, vocabulary]. workspace: llmchat_workspace_bytes bytes at a multiple
 * of 64. encodes: run the blocks of the encoder over whole texts instead of the others; logits:
 * [sequences], see report_invalid. */
void llmchat_step(const Model *model, const SequenceRows *sequences, int64_t count, int threads,
                  int encodes, float *logits, char *workspace, const OpenMP *openmp) {
    int64_t shared, each, loops = loop_bytes(model, threads);
    Pass pass = {.model = model, .sequences = sequences, .sequence_count = count, .logits = logits};
    pass.encodes = encodes;
#ifdef LLMCHAT_CHECKED
    check_model(model);
    for (int64_t i = 0; i < count; i++) check_sequence(model, sequences + i, encodes);
#endif
    int64_t bytes = measure(&pass, threads, &shared, &each);
    POISON(workspace + loops, bytes - loops);
    memset(workspace, 0, loops);
    Arena arena = {workspace + loops, 0};
    lay_out_shared(&pass, &arena);
    number_rows(&pass);
    Team team = {.pass = &pass, .openmp = threads > 1 ? openmp : NULL, .loops = (Loop *)workspace};
    team.memory = workspace + shared, team.bytes_each = each;
    run_parallel(team.openmp, run_member, &team, threads);
    UNPOISON(workspace, bytes);
}

/* Choose a token from a row of logits, see choose_token. */
int64_t llmchat_sample(const float *logits, int64_t count, const SamplingParams *params,
                       Candidate *found, int64_t *from, int64_t *to) {
    return choose_token(logits, count, params, found, from, to);
}

/* Copy a row of logits without the tokens that a mask excludes, see mask_logits. */
void llmchat_mask(const float *logits, const uint32_t *allowed, int64_t count, float *out) {
    mask_logits(logits, allowed, count, out);
}
