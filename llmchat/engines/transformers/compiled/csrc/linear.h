/* Linears of the prepared activations: products of panels, their scales and biases, live adapters,
 * and what becomes of the results.
 *
 * A unit of work is a panel of 32 outputs, so that each weight is read once, by one thread. */
#pragma once
#include "activation_functions.h"
#include "lora.h"

/* What becomes of the outputs: stored; added to what is there, times a factor; stored after the
 * activation function; or, for the two matrices of a gated MLP, act(first) * second stored. */
typedef enum { STORE, ADD, ACTIVATED, GATED } Epilogue;

/* `count` matrices that share their input. linear: the number of the first one, for adapters. out:
 * [rows, stride], the outputs of the matrices side by side. final: the rows are those that want
 * logits. */
typedef struct {
    const Matrix *matrices;
    int64_t linear, count;
    Epilogue epilogue;
    float *out;
    int64_t stride;
    int final;
    float factor;
    const Activation *activation;
} Linears;

/* The part of Linears that a unit computes: 16 outputs of `left` from `column` on, and 16 of
 * `right` from `right_column` on. out_column: where the outputs of `left` begin in `out`. */
typedef struct {
    const Matrix *left, *right;
    int64_t index, column, right_column, out_column;
} Panel;

static int64_t count_panels(const Linears *linears) {
    if (linears->epilogue == GATED) return (linears->matrices->out + LANES - 1) / LANES;
    int64_t panels = 0;
    for (int64_t l = 0; l < linears->count; l++)
        panels += (linears->matrices[l].out + PANEL_COLUMNS - 1) / PANEL_COLUMNS;
    return panels;
}

static Panel panel_at(const Linears *linears, int64_t unit) {
    const Matrix *matrices = linears->matrices;
    if (linears->epilogue == GATED)
        return (Panel){matrices, matrices + 1, 0, unit * LANES, unit * LANES, 0};
    int64_t l = 0, out_column = 0, column = unit * PANEL_COLUMNS;
    for (; column >= ROUND_UP(matrices[l].out, PANEL_COLUMNS); l++) {
        column -= ROUND_UP(matrices[l].out, PANEL_COLUMNS);
        out_column += matrices[l].out;
    }
    return (Panel){matrices + l, matrices + l, l, column, column + LANES, out_column};
}

/* 16 rows of a matrix from `first` on, the last one repeated beyond the end. */
static RowBlock block_of(const Matrix *matrix, int64_t first, const int8_t *next) {
    RowBlock block = {.next = next};
    for (int i = 0; i < LANES; i++)
        block.rows[i] = matrix->weight + MIN(first + i, matrix->out - 1) * matrix->in;
    return block;
}

/* The product of the second term, behind that of the first, is added to it. */
static void add_second_term(float *product, int64_t rows) {
    int64_t count = rows * PANEL_COLUMNS;
    for (int64_t i = 0; i < count; i += LANES)
        store(product + i, load(product + i) + load(product + count + i));
}

/* A tile of rows at a time, of each side that is grouped. */
static void multiply_grouped_rows(Worker *worker, const Activations *acts,
                                  const Activations *residual, const Panel *panel) {
    for (int64_t first = 0; first < acts->rows; first += TILE_ROWS) {
        int64_t count = MIN(TILE_ROWS, acts->rows - first);
        float *out = worker->product + first * PANEL_COLUMNS;
        if (panel->left->grouping)
            multiply_few_rows(acts, residual, first, count, panel->left, panel->column, out);
        if (panel->right->grouping)
            multiply_few_rows(acts, residual, first, count, panel->right, panel->right_column,
                              out + LANES);
    }
}

/* Many rows share a panel, unless its sides differ, which is rare. */
static void multiply_grouped(Worker *worker, const Activations *acts, const Activations *residual,
                             const Panel *panel, int64_t ahead) {
    const Matrix *left = panel->left, *right = panel->right;
    if (acts->rows > TILE_ROWS && left->grouping && right->grouping &&
        are_alike(left->grouping, right->grouping)) {
        Side sides[] = {side_of(left, panel->column), side_of(right, panel->right_column)};
        multiply_grouped_panels(acts, residual, sides, ahead / LANES, (GroupedPanel *)worker->panel,
                                worker->product);
        if (residual) add_second_term(worker->product, acts->rows);
        return;
    }
    multiply_grouped_rows(worker, acts, residual, panel);
}

static void multiply_int8(Worker *worker, const Activations *acts, const Activations *residual,
                          const Panel *panel, int64_t ahead) {
    const int8_t *left = panel->left->weight + panel->column * acts->in;
    const int8_t *right = panel->right->weight + panel->right_column * acts->in;
    /* Few rows take one block after the other, more rows take both at once. */
    int in_turn = acts->rows <= GEMV_MAX_ROWS;
    ahead *= acts->in;
    RowBlock left_block = block_of(panel->left, panel->column, in_turn ? right : left + ahead);
    RowBlock right_block =
        block_of(panel->right, panel->right_column, (in_turn ? left : right) + ahead);
    multiply_panel(acts, residual, &left_block, &right_block, worker->panel, worker->product);
    if (residual) add_second_term(worker->product, acts->rows);
}

/* worker->product: [rows][32], without the scales of int8 rows. residual: the second term of the
 * activations, or NULL. ahead: rows of weights to the next panel. */
static void multiply_rows(Worker *worker, const Activations *acts, const Activations *residual,
                          const Panel *panel, int64_t ahead) {
    Panel rows = *panel;
    if (rows.left->grouping) rows.left = rows.right, rows.column = rows.right_column;
    if (rows.right->grouping) rows.right = rows.left, rows.right_column = rows.column;
    if (!rows.left->grouping) multiply_int8(worker, acts, residual, &rows, ahead);
    if (panel->left->grouping || panel->right->grouping)
        multiply_grouped(worker, acts, residual, panel, ahead);
}

/* The same for the prepared activations. */
static void multiply_weights(Worker *worker, const Linears *linears, const Panel *panel) {
    const Activations *residual = worker->two_term ? &worker->residual : NULL;
    int64_t ahead = linears->epilogue == GATED ? LANES : PANEL_COLUMNS;
    multiply_rows(worker, &worker->acts, residual, panel, ahead);
}

/* 16 finished outputs of a row of `matrix` from `column` on. hidden: see lora_up. */
INLINE f32x16 finish(const float *product, const Matrix *matrix, int64_t column,
                     const SequenceRows *sequence, int64_t linear, const bf16 *hidden) {
    f32x16 y = load(product);
    if (matrix->scale) y *= load(matrix->scale + column);
    if (matrix->bias) y += load(matrix->bias + column);
    return lora_up(y, column, sequence, linear, hidden);
}

/* A memcpy of variable length takes longer than the product. */
static void store_some(float *target, f32x16 v, int64_t count) {
    if (count >= LANES)
        store(target, v);
    else
        memcpy(target, &v, count * sizeof(float));
}

/* Zero beyond `count` numbers. */
static f32x16 load_some(const float *source, int64_t count) {
    f32x16 v = {};
    if (count >= LANES) return load(source);
    memcpy(&v, source, count * sizeof(float));
    return v;
}

/* Scale and limit logits as the model says. */
static __attribute__((noinline)) f32x16 finish_logits(const Model *model, f32x16 logits) {
    logits *= model->logit_scale;
    return model->logit_softcap ? soft_cap(logits, model->logit_softcap) : logits;
}

/* The epilogue for one row of a panel. */
INLINE void finish_row(Worker *worker, const Linears *linears, const Panel *panel, int64_t row) {
    const Pass *pass = worker->pass;
    const SequenceRows *sequence = sequence_at(pass, row, linears->final);
    const bf16 *hidden = pass->lora_hidden + row * pass->ranks;
    const float *product = worker->product + row * PANEL_COLUMNS;
    int gated = linears->epilogue == GATED;
    int64_t linear = linears->linear + panel->index;
    if (sequence->adapter_count) hidden += ranks_of(sequence, linears->linear, panel->index);
    f32x16 y = finish(product, panel->left, panel->column, sequence, linear, hidden);
    if (gated && sequence->adapter_count) hidden += ranks_of(sequence, linears->linear, 1);
    f32x16 z = finish(product + LANES, panel->right, panel->right_column, sequence, linear + gated,
                      hidden);
    float *target = linears->out + row * linears->stride + panel->out_column + panel->column;
    int64_t left = panel->left->out - panel->column;
    if (gated) {
        const Activation *activation = linears->activation;
        if (activation->kind == SILU && activation->gate_scale == 1.0f)
            store_some(target, y / (1.0f + vector_exp(-y)) * z, left);
        else
            store_some(target, activate_pair(activation, y, z), left);
        return;
    }
    if (linears->final) y = finish_logits(pass->model, y), z = finish_logits(pass->model, z);
    if (linears->epilogue == ACTIVATED)
        y = activate(linears->activation, y), z = activate(linears->activation, z);
    if (linears->epilogue == ADD) {
        float tail[PANEL_COLUMNS] = {0};
        const float *before = target;
        if (left < PANEL_COLUMNS) before = memcpy(tail, target, left * sizeof *tail);
        y = y * linears->factor + load(before);
        z = z * linears->factor + load(before + LANES);
    }
    store_some(target, y, left);
    if (left > LANES) store_some(target + LANES, z, left - LANES);
}

static void run_linears(Worker *worker, const Linears *linears) {
    lora_down(worker, linears->linear, linears->count, linears->final);
    int64_t rows = worker->acts.rows;
    loop_begin(&worker->cursor, count_panels(linears), rows <= PREFETCH_MAX_ROWS);
    for (int64_t unit; (unit = loop_next(&worker->cursor)) >= 0;) {
        Panel panel = panel_at(linears, unit);
        multiply_weights(worker, linears, &panel);
        if (worker->pass->ranks) barrier(&worker->lora_cursor);
        for (int64_t row = 0; row < rows; row++) finish_row(worker, linears, &panel, row);
    }
    barrier(&worker->cursor);
}

/* Linear number `index` of a block, whose input is prepared: [rows, stride]. */
static void run_one_linear(Worker *worker, const Block *block, int64_t index, float *out,
                           int64_t stride) {
    run_linears(worker, &(Linears){.matrices = block->linear + index,
                                   .linear = block->first_linear + index,
                                   .count = 1,
                                   .epilogue = STORE,
                                   .out = out,
                                   .stride = stride});
}
