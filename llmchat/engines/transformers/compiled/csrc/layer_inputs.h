/* Inputs that layers have of their own (Gemma 3n and 4): computed from the tokens at the beginning
 * of a pass, and added to the stream by a block of each layer. */
#pragma once
#include "prepare.h"

/* (embedding * scale + norm(linear(x)) * linear_scale) * factor of a row; `row`: linear(x). */
static void finish_layer_inputs(const LayerInputs *inputs, int32_t token, float *row) {
    int64_t width = inputs->linear.out;
    const bf16 *own = inputs->embedding + (token < inputs->vocabulary ? token : 0) * width;
    for (int64_t i = 0; i < width; i++) row[i] *= inputs->linear_scale;
    if (inputs->norm.count)
        for (int64_t group = 0; group < inputs->norm.count / inputs->norm.group; group++)
            norm_group(&inputs->norm, row + group * inputs->norm.group, group);
    for (int64_t i = 0; i < width; i++)
        row[i] = (bf16_to_float(own[i]) * inputs->scale + row[i]) * inputs->factor;
}

/* The inputs of all layers for the embedded rows in pass->x. */
static void find_layer_inputs(Worker *worker) {
    const Pass *pass = worker->pass;
    const LayerInputs *inputs = pass->model->layer_inputs;
    int64_t width = inputs->linear.out;
    prepare_input(worker,
                  (Source){.kind = FROM_ROWS, .width = pass->model->hidden, .rows = pass->x});
    run_linears(worker, &(Linears){.matrices = &inputs->linear,
                                   .linear = pass->model->linears - 1,
                                   .count = 1,
                                   .epilogue = STORE,
                                   .out = pass->layer_inputs,
                                   .stride = width});
    loop_begin(&worker->cursor, pass->rows, 1);
    for (int64_t row; (row = loop_next(&worker->cursor)) >= 0;) {
        int64_t index = pass->sequence_of[row];
        int32_t token = pass->sequences[index].ids[row - pass->first_row[index]];
        finish_layer_inputs(inputs, token, pass->layer_inputs + row * width);
    }
    barrier(&worker->cursor);
}

/* output(act(gate(x)) * input of the layer) */
static void run_layer_input(Worker *worker, const Block *block) {
    const Pass *pass = worker->pass;
    const LayerInput *details = block->details;
    int64_t width = block->linear->out, all = pass->model->layer_inputs->linear.out;
    prepare_input(worker, block_input(worker, block));
    run_linears(worker, &(Linears){.matrices = block->linear,
                                   .linear = block->first_linear,
                                   .count = 1,
                                   .epilogue = ACTIVATED,
                                   .out = pass->inner,
                                   .stride = width,
                                   .activation = &details->activation});
    loop_begin(&worker->cursor, pass->rows, 1);
    for (int64_t row; (row = loop_next(&worker->cursor)) >= 0;) {
        const float *own = pass->layer_inputs + row * all + details->first;
        for (int64_t i = 0; i < width; i++) pass->inner[row * width + i] *= own[i];
    }
    barrier(&worker->cursor);
    prepare_input(worker,
                  (Source){.kind = FROM_ROWS, .two_term = 1, .width = width, .rows = pass->inner});
    run_output(worker, block, 1);
}
