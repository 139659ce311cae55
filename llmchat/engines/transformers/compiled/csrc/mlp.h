/* An MLP block: output(act(gate(x)) * up(x)), or output(act(up(x))). */
#pragma once
#include "prepare.h"

static void run_mlp(Worker *worker, const Block *block) {
    const Pass *pass = worker->pass;
    const Mlp *mlp = block->details;
    int64_t inner = block->linear->out;
    prepare_input(worker, block_input(worker, block));
    run_linears(worker, &(Linears){.matrices = block->linear,
                                   .linear = block->first_linear,
                                   .count = block->inputs,
                                   .epilogue = block->inputs == 2 ? GATED : ACTIVATED,
                                   .out = pass->inner,
                                   .stride = inner,
                                   .activation = &mlp->activation});
    prepare_input(worker,
                  (Source){.kind = FROM_ROWS, .two_term = 1, .width = inner, .rows = pass->inner});
    run_output(worker, block, block->inputs);
}
