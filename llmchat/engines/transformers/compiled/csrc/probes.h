/* Entry points for tests and benchmarks: products without a model, and the speed of memory. */
#pragma once
#include <stdlib.h>

#include "linear.h"
#include "openmp.h"

typedef struct {
    const Matrix *matrices;
    const OpenMP *openmp;
    int64_t count;
    float *out;
    Activations acts;
    float *ordered; /* a row in the order of the matrices */
    Loop *loops;
    Worker *workers; /* [threads] */
    atomic_int arrived;
} ProductTeam;

static void run_product_member(void *data) {
    ProductTeam *team = data;
    Worker *worker = team->workers + atomic_fetch_add(&team->arrived, 1);
    worker->cursor.threads = team_size(team->openmp);
    for (int64_t i = 0; i < team->count; i++) {
        const Matrix *matrix = team->matrices + i;
        float *out = team->out + i * worker->acts.rows * matrix->out;
        run_linears(worker, &(Linears){.matrices = matrix,
                                       .count = 1,
                                       .epilogue = STORE,
                                       .out = out,
                                       .stride = matrix->out});
    }
}

static void lay_out_products(ProductTeam *team, Pass *pass, int threads, Arena *arena) {
    int64_t rows = pass->rows, in = team->matrices->in;
    team->acts = with_shape(alloc_activations(arena, rows, in), rows, in);
    team->ordered = alloc_floats(arena, in);
    team->loops = arena_alloc(arena, (team->count + 1) * LOOP_SIZE(threads));
    team->workers = arena_alloc(arena, threads * sizeof(Worker));
    pass->sequence_of = arena_alloc(arena, rows * sizeof(int32_t));
    for (int i = 0; i < threads; i++) {
        Worker worker = {.pass = pass, .acts = team->acts};
        worker.cursor = (LoopCursor){.loop = team->loops, .index = i};
        worker.product = alloc_floats(arena, MAX(rows, TILE_ROWS) * PANEL_COLUMNS);
        worker.panel = arena_alloc(arena, PANEL_BYTES);
        if (arena->base) team->workers[i] = worker;
    }
}

/* out[count][rows][matrix.out] = x[rows][in] times each of `count` matrices of one shape. Returns 1
 * if there is not enough memory. */
int llmchat_multiply(const Matrix *matrices, int64_t count, const float *x, int64_t rows,
                     float *out, int threads, const OpenMP *openmp) {
    SequenceRows sequence = {.rows = rows};
    Pass pass = {.sequences = &sequence, .sequence_count = 1, .rows = rows};
    ProductTeam team = {matrices, threads > 1 ? openmp : NULL, count, out};
    Arena sizes = {NULL, 0};
    lay_out_products(&team, &pass, threads, &sizes);
    char *memory = aligned_alloc(64, sizes.used);
    if (!memory) return 1;
    memset(memory, 0, sizes.used);
    Arena arena = {memory, 0};
    lay_out_products(&team, &pass, threads, &arena);
    float *ordered = team.ordered;
    for (int64_t row = 0; row < rows; row++) {
        const float *source = x + row * matrices->in;
        for (int64_t i = 0; matrices->order && i < matrices->in; i++)
            ordered[i] = source[matrices->order[i]];
        quantise(&team.acts, row, matrices->order ? ordered : source, 0, team.acts.groups, NULL);
    }
    run_parallel(team.openmp, run_product_member, &team, threads);
    free(memory);
    return 0;
}

/* ---- the speed of memory */

#define PIECE (1 << 20)
#define MAX_THREADS 256 /* that build.py requests */

typedef struct {
    const char *start;
    int64_t pieces;
    Loop *loop;
    const OpenMP *openmp;
    atomic_int arrived, sum;
} ReadTeam;

static void run_read_member(void *data) {
    ReadTeam *team = data;
    LoopCursor cursor = {.loop = team->loop, .threads = team_size(team->openmp)};
    cursor.index = atomic_fetch_add(&team->arrived, 1);
    i32x16 sums[4] = {{0}};
    loop_begin(&cursor, team->pieces, 1);
    for (int64_t piece; (piece = loop_next(&cursor)) >= 0;) {
        const char *start = team->start + piece * PIECE;
        for (const char *at = start; at < start + PIECE; at += sizeof sums) {
            i32x16 part[4];
            memcpy(part, at, sizeof part);
            for (int i = 0; i < 4; i++) {
                sums[i] += part[i];
                __builtin_prefetch(at + 4096 + i * 64, 0, 2);
            }
        }
    }
    int32_t sum = reduce_add_i32(sums[0] + sums[1] + sums[2] + sums[3]);
    atomic_fetch_add(&team->sum, sum);
}

/* Read whole mebibytes, and do nothing else; returns the sum of their 32-bit numbers. */
int llmchat_read_memory(const char *start, int64_t bytes, int threads, const OpenMP *openmp) {
    _Alignas(64) char loops[2 * LOOP_SIZE(MAX_THREADS)] = {0};
    ReadTeam team = {.start = start, .pieces = bytes / PIECE, .loop = (Loop *)loops};
    team.openmp = threads > 1 ? openmp : NULL;
    run_parallel(team.openmp, run_read_member, &team, threads);
    return team.sum;
}
