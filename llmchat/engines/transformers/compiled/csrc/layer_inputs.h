/* Inputs that layers have of their own (Gemma 3n and 4): computed from the tokens at the beginning
 * of a pass, and added to the stream by a block of each layer. */
#pragma once
#include "streams.h"

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

/* Multiply the rows that a block reads; they are then in pass->after. */
static void scale_rows(Worker *worker, const float *scale, Source *source) {
    const Pass *pass = worker->pass;
    int64_t hidden = pass->model->hidden;
    loop_begin(&worker->cursor, pass->rows, 1);
    for (int64_t row; (row = loop_next(&worker->cursor)) >= 0;)
        for (int64_t i = row * hidden; i < (row + 1) * hidden; i++)
            pass->after[i] = source->rows[i] * scale[i - row * hidden];
    barrier(&worker->cursor);
    source->rows = pass->after;
}

/* Norm what a block left in pass->after, and add it to all streams but x. */
static void add_to_streams(Worker *worker, const Norm *norm) {
    const Pass *pass = worker->pass;
    int64_t hidden = pass->model->hidden;
    loop_begin(&worker->cursor, pass->rows, 1);
    for (int64_t row; (row = loop_next(&worker->cursor)) >= 0;) {
        const float *y = pass->after + row * hidden;
        norm_group(norm, pass->after + row * hidden, 0);
        for (int64_t stream = 1; stream < pass->sizes.streams; stream++) {
            float *target = stream_rows(pass, stream) + row * hidden;
            for (int64_t i = 0; i < hidden; i++) target[i] += y[i];
        }
    }
    barrier(&worker->cursor);
}

/* output(act(gate(x)) * input of the layer) */
static void run_layer_input(Worker *worker, const Block *block) {
    const Pass *pass = worker->pass;
    const LayerInput *details = block->details;
    int64_t width = block->linear->out, all = pass->model->layer_inputs->linear.out;
    Source source = block_input(worker, block);
    if (details->scale) scale_rows(worker, details->scale, &source);
    prepare_input(worker, source);
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
    if (!details->stream_norm.count) {
        run_output(worker, block, 1);
        return;
    }
    run_one_linear(worker, block, 1, pass->after, pass->model->hidden);
    add_to_streams(worker, &details->stream_norm);
}
