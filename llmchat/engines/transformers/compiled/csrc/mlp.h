/* An MLP block: output(act(gate(x)) * up(x)), or output(act(up(x))). */
#pragma once
#include "prepare.h"

/* act(gate - limit) * up for the gates above the limit of their row, 0 for the others. row: gates,
 * then what they let through. */
static void cut_row(const Mlp *mlp, const float *row, int64_t inner, float *out) {
    float mean = sum_of(row, inner) / inner;
    float limit = mean + mlp->cutoff * sqrtf(sum_of_squares(row, inner, mean) / inner);
    for (int64_t i = 0; i < inner; i += LANES) {
        int64_t count = MIN(LANES, inner - i);
        f32x16 gate = vector_max(load_some(row + i, count) - limit, (f32x16){});
        f32x16 up = load_some(row + inner + i, count);
        store_some(out + i, activate_pair(&mlp->activation, gate, up), count);
    }
}

/* Gates and what they let through, whose limits depend on whole rows. */
static void run_cut_inputs(Worker *worker, const Block *block) {
    const Pass *pass = worker->pass;
    int64_t inner = block->linear->out;
    run_linears(worker, &(Linears){.matrices = block->linear,
                                   .linear = block->first_linear,
                                   .count = 2,
                                   .epilogue = STORE,
                                   .out = pass->wide,
                                   .stride = 2 * inner});
    loop_begin(&worker->cursor, pass->rows, 1);
    for (int64_t row; (row = loop_next(&worker->cursor)) >= 0;)
        cut_row(block->details, pass->wide + row * 2 * inner, inner, pass->inner + row * inner);
    barrier(&worker->cursor);
}

static void run_mlp_inputs(Worker *worker, const Block *block) {
    const Mlp *mlp = block->details;
    run_linears(worker, &(Linears){.matrices = block->linear,
                                   .linear = block->first_linear,
                                   .count = block->inputs,
                                   .epilogue = block->inputs == 2 ? GATED : ACTIVATED,
                                   .out = worker->pass->inner,
                                   .stride = block->linear->out,
                                   .activation = &mlp->activation});
}

static void run_mlp(Worker *worker, const Block *block) {
    const Pass *pass = worker->pass;
    int64_t inner = block->linear->out;
    prepare_input(worker, block_input(worker, block));
    (cuts_gates(block) ? run_cut_inputs : run_mlp_inputs)(worker, block);
    const Matrix *output = block->linear + block->inputs;
    prepare_input(worker, (Source){.kind = FROM_ROWS,
                                   .two_term = needs_two_terms(worker->pass->model, output),
                                   .width = inner,
                                   .rows = pass->inner,
                                   .order = output->order});
    run_output(worker, block, block->inputs);
}
