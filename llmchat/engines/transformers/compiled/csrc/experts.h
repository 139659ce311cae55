/* A mixture of experts. Rows are gathered by expert; the panels of all experts are the units of one
 * loop, so that few rows read the weights of their experts at the speed of memory, and many rows
 * keep all threads busy. A row adds up its experts in the order of its own choice. */
#pragma once
#include "expert_groups.h"
#include "prepare.h"

/* ---- live adapters */

/* A x of all places, for the inputs of experts or for their outputs. */
static void run_expert_lora(Worker *worker, const Experts *e, int is_output) {
    const Pass *pass = worker->pass;
    if (!pass->ranks) return;
    int64_t places = places_of(worker, worker->experts.group_count);
    int64_t chunks = (pass->ranks + RANKS_PER_UNIT - 1) / RANKS_PER_UNIT;
    loop_begin(&worker->cursor, places * chunks, 1);
    for (int64_t unit; (unit = loop_next(&worker->cursor)) >= 0;) {
        int64_t place = unit / chunks, begin = unit % chunks * RANKS_PER_UNIT;
        const ExpertGroup *group = group_of_place(worker, place);
        if (place < group->first) continue;
        const float *rows = group->is_shared ? worker->unquantised : worker->experts.expert_rows;
        const float *x = rows + worker->experts.row_of[place] * pass->model->hidden;
        float factor = 1.0f;
        if (is_output)
            x = pass->experts.inner + group->inner_first + (place - group->first) * group->inner;
        else if (e->weights_input && !group->is_shared)
            factor = pass->experts.weights[worker->experts.slot_of[place]];
        int64_t linear = is_output ? group->inputs : 0, count = is_output ? 1 : group->inputs;
        lora_ranks(sequence_at(pass, worker->experts.row_of[place], 0), group->number + linear,
                   count, x, group->linear[linear].in, begin, factor,
                   pass->experts.lora_hidden + place * pass->ranks);
    }
    worker->lora_cursor = worker->cursor;
}

/* 16 finished outputs of linear `linear` of a group at a place. before: linears whose ranks come
 * first. */
INLINE f32x16 finish_place(const Worker *worker, const ExpertGroup *group, int64_t linear,
                           int64_t before, int64_t place, int64_t column, const float *product) {
    const Pass *pass = worker->pass;
    const SequenceRows *sequence = sequence_at(pass, worker->experts.row_of[place], 0);
    const bf16 *hidden = pass->experts.lora_hidden + place * pass->ranks;
    int64_t number = group->number + linear;
    if (sequence->adapter_count && before) hidden += ranks_of(sequence, number - before, before);
    return finish(product, group->linear + linear, column, sequence, number, hidden);
}

/* ---- products */

static int64_t input_panels(const ExpertGroup *group) {
    int64_t columns = group->inputs == 2 ? LANES : PANEL_COLUMNS;
    return (group->inner + columns - 1) / columns;
}

/* The group that a unit belongs to, of which it becomes the panel. */
static const ExpertGroup *group_of_unit(const Worker *worker, int64_t panels, int64_t *unit) {
    int64_t group = MIN(*unit / panels, worker->experts.routed);
    *unit -= group * panels;
    return worker->experts.groups + group;
}

/* One panel of gate and up, or of up alone, of a group. */
static void run_input_panel(Worker *worker, const ExpertGroup *group, int64_t unit) {
    int gated = group->inputs == 2;
    int64_t column = unit * (gated ? LANES : PANEL_COLUMNS);
    int64_t right = gated ? column : column + LANES;
    Panel panel = {group->linear, group->linear + gated, 0, column, right, 0};
    Activations acts = group_input(worker, group);
    float *inner = worker->pass->experts.inner + group->inner_first + column;
    multiply_rows(worker, &acts, NULL, &panel, gated ? LANES : PANEL_COLUMNS);
    if (worker->pass->ranks) barrier(&worker->lora_cursor);
    for (int64_t i = 0; i < group->count; i++) {
        const float *product = worker->product + i * PANEL_COLUMNS;
        int64_t place = group->first + i, left = group->inner - column;
        float *target = inner + i * group->inner;
        f32x16 y = finish_place(worker, group, 0, 0, place, column, product);
        f32x16 z = finish_place(worker, group, gated, gated, place, right, product + LANES);
        if (gated) {
            store_some(target, activate_pair(group->activation, y, z), left);
            continue;
        }
        store_some(target, activate(group->activation, y), left);
        if (left > LANES) store_some(target + LANES, activate(group->activation, z), left - LANES);
    }
}

static void run_expert_inputs(Worker *worker, const Experts *e) {
    const ExpertGroup *last = worker->experts.groups + worker->experts.group_count - 1;
    int64_t panels = input_panels(worker->experts.groups), units = worker->experts.routed * panels;
    if (e->shared_inner) units += input_panels(last);
    run_expert_lora(worker, e, 0);
    loop_begin(&worker->cursor, units, worker->pass->rows <= PREFETCH_MAX_ROWS);
    for (int64_t unit; (unit = loop_next(&worker->cursor)) >= 0;) {
        const ExpertGroup *group = group_of_unit(worker, panels, &unit);
        run_input_panel(worker, group, unit);
    }
    barrier(&worker->cursor);
}

/* One panel of the outputs of a group, to `results`. */
static void run_output_panel(Worker *worker, const ExpertGroup *group, int64_t unit) {
    const ExpertMemory *memory = &worker->pass->experts;
    int64_t column = unit * PANEL_COLUMNS, hidden = worker->pass->model->hidden;
    const Matrix *output = group->linear + group->inputs;
    Panel panel = {output, output, 0, column, column + LANES, 0};
    int64_t first = group->inner_first, count = group->count, in = group->inner;
    Activations acts = part_of(memory->acts, first, count, in);
    Activations residual = part_of(memory->residual, first, count, in);
    int needs_two = needs_two_terms(worker->pass->model, output);
    multiply_rows(worker, &acts, needs_two ? &residual : NULL, &panel, PANEL_COLUMNS);
    if (worker->pass->ranks) barrier(&worker->lora_cursor);
    for (int64_t i = 0; i < group->count; i++) {
        const float *product = worker->product + i * PANEL_COLUMNS;
        int64_t place = group->first + i, left = hidden - column;
        float *target = memory->results + place * hidden + column;
        f32x16 y = finish_place(worker, group, group->inputs, 0, place, column, product);
        f32x16 z =
            finish_place(worker, group, group->inputs, 0, place, column + LANES, product + LANES);
        store_some(target, y, left);
        if (left > LANES) store_some(target + LANES, z, left - LANES);
    }
}

static void run_expert_outputs(Worker *worker, const Experts *e) {
    int64_t panels = (worker->pass->model->hidden + PANEL_COLUMNS - 1) / PANEL_COLUMNS;
    run_expert_lora(worker, e, 1);
    loop_begin(&worker->cursor, worker->experts.group_count * panels,
               worker->pass->rows <= PREFETCH_MAX_ROWS);
    for (int64_t unit; (unit = loop_next(&worker->cursor)) >= 0;)
        run_output_panel(worker, worker->experts.groups + unit / panels, unit % panels);
    barrier(&worker->cursor);
}

/* ---- activations */

/* Norm what the router and the experts read, a row after the other. */
static void norm_expert_rows(Worker *worker, const Experts *e) {
    const Pass *pass = worker->pass;
    const ExpertMemory *memory = &pass->experts;
    int64_t hidden = pass->model->hidden;
    loop_begin(&worker->cursor, pass->rows, 1);
    for (int64_t row; (row = loop_next(&worker->cursor)) >= 0;) {
        const float *x = worker->experts.rows + row * hidden;
        if (e->router_norm.count)
            norm_row(&e->router_norm, x, 0, hidden, memory->router_rows + row * hidden);
        if (e->expert_norm.count)
            norm_row(&e->expert_norm, x, 0, hidden, memory->expert_rows + row * hidden);
    }
    barrier(&worker->cursor);
}

/* Find what the router and the experts read, and prepare what the shared expert reads. */
static void prepare_rows(Worker *worker, const Block *block) {
    const Experts *e = block->details;
    const ExpertMemory *memory = &worker->pass->experts;
    Source source = block_input(worker, block);
    if (e->shared_norm.count) source.norm = &e->shared_norm;
    prepare_input(worker, source);
    worker->experts.rows = has_input_norms(e) ? source.rows : worker->unquantised;
    worker->experts.router_rows = e->router_norm.count ? memory->router_rows : worker->experts.rows;
    worker->experts.expert_rows = e->expert_norm.count ? memory->expert_rows : worker->experts.rows;
    if (e->router_norm.count || e->expert_norm.count) norm_expert_rows(worker, e);
}

/* Quantise what the chosen experts read. */
static void gather_rows(Worker *worker, const Experts *e) {
    const Pass *pass = worker->pass;
    int64_t hidden = pass->model->hidden, groups = ROUND_UP(hidden, CACHE_LINE) / GROUP;
    worker->experts.reads_rows = pass->rows == 1 && !e->weights_input && !has_input_norms(e);
    if (worker->experts.reads_rows) return;
    loop_begin(&worker->cursor, places_of(worker, worker->experts.routed), 1);
    for (int64_t place; (place = loop_next(&worker->cursor)) >= 0;) {
        const ExpertGroup *group = group_of_place(worker, place);
        if (place < group->first) continue;
        Activations acts = group_input(worker, group);
        const float *x = worker->experts.expert_rows + worker->experts.row_of[place] * hidden;
        if (e->weights_input) {
            float weight = pass->experts.weights[worker->experts.slot_of[place]];
            for (int64_t i = 0; i < hidden; i++) worker->experts.weighted_row[i] = x[i] * weight;
            x = worker->experts.weighted_row;
        }
        quantise(&acts, place - group->first, x, 0, groups, NULL);
    }
    barrier(&worker->cursor);
}

/* Quantise what the outputs of experts read, to two terms. */
static void prepare_inner(Worker *worker) {
    const ExpertMemory *memory = &worker->pass->experts;
    loop_begin(&worker->cursor, places_of(worker, worker->experts.group_count), 1);
    for (int64_t place; (place = loop_next(&worker->cursor)) >= 0;) {
        const ExpertGroup *group = group_of_place(worker, place);
        if (place < group->first) continue;
        int64_t row = place - group->first, in = group->inner;
        Activations acts = part_of(memory->acts, group->inner_first, group->count, in);
        Activations residual = part_of(memory->residual, group->inner_first, group->count, in);
        const float *x = memory->inner + group->inner_first + row * in;
        int needs_two = needs_two_terms(worker->pass->model, group->linear + group->inputs);
        quantise(&acts, row, x, 0, acts.groups, needs_two ? worker->residual_row : NULL);
        if (needs_two) quantise(&residual, row, worker->residual_row, 0, acts.groups, NULL);
    }
    barrier(&worker->cursor);
}

/* ---- the sum */

/* Numbers [begin, end) of what a row's chosen experts give together. */
static void sum_chosen(const Worker *worker, const Experts *e, int64_t row, int64_t begin,
                       int64_t end, float *out) {
    const ExpertMemory *memory = &worker->pass->experts;
    int64_t hidden = worker->pass->model->hidden;
    memset(out, 0, (end - begin) * sizeof *out);
    for (int64_t slot = row * e->top; slot < (row + 1) * e->top; slot++) {
        const float *y = memory->results + worker->experts.place_of[slot] * hidden + begin;
        float weight = e->weights_input ? 1.0f : memory->weights[slot];
        for (int64_t i = 0; i < end - begin; i++) out[i] += weight * y[i];
    }
}

/* What the shared expert gives a row: [hidden]. */
static float *shared_result(const Worker *worker, int64_t row) {
    const ExpertGroup *group = worker->experts.groups + worker->experts.routed;
    return worker->pass->experts.results + (group->first + row) * worker->pass->model->hidden;
}

/* Numbers [begin, end) of what a row's experts give together. */
static void sum_experts(const Worker *worker, const Experts *e, int64_t row, int64_t begin,
                        int64_t end, float *out) {
    sum_chosen(worker, e, row, begin, end, out);
    if (!e->shared_inner) return;
    const float *last = shared_result(worker, row);
    float factor = worker->pass->experts.shared[row];
    for (int64_t i = begin; i < end; i++) out[i - begin] += factor * last[i];
}

/* The same of the whole row, with the norms of both results. */
static void sum_normed_experts(const Worker *worker, const Experts *e, int64_t row, float *out) {
    int64_t hidden = worker->pass->model->hidden;
    sum_chosen(worker, e, row, 0, hidden, out);
    if (e->expert_post_norm.count) norm_group(&e->expert_post_norm, out, 0);
    if (!e->shared_inner) return;
    float *last = shared_result(worker, row), factor = worker->pass->experts.shared[row];
    for (int64_t i = 0; i < hidden; i++) last[i] *= factor;
    if (e->shared_post_norm.count) norm_group(&e->shared_post_norm, last, 0);
    for (int64_t i = 0; i < hidden; i++) out[i] += last[i];
}

#define SUM_COLUMNS 256 /* numbers of a row that one unit of work adds up */

/* x += scale * the sum, or the sum to pass->after for a norm. */
static void add_experts(Worker *worker, const Block *block) {
    const Pass *pass = worker->pass;
    const Experts *e = block->details;
    int is_plain = !block->post_norm.count && block->factor == 1.0f;
    int64_t hidden = pass->model->hidden, parts = (hidden + SUM_COLUMNS - 1) / SUM_COLUMNS;
    loop_begin(&worker->cursor, pass->rows * parts, 1);
    for (int64_t unit; (unit = loop_next(&worker->cursor)) >= 0;) {
        int64_t row = unit / parts, begin = unit % parts * SUM_COLUMNS;
        int64_t end = MIN(begin + SUM_COLUMNS, hidden);
        float sum[SUM_COLUMNS];
        sum_experts(worker, e, row, begin, end, sum);
        float *target = (is_plain ? pass->x : pass->after) + row * hidden + begin;
        for (int64_t i = 0; i < end - begin; i++)
            target[i] = is_plain ? target[i] + block->scale * sum[i] : sum[i];
    }
    barrier(&worker->cursor);
    if (!is_plain) add_normed(worker, block);
}

/* The same with the norms of both results, a row after the other. */
static void add_normed_experts(Worker *worker, const Block *block) {
    const Pass *pass = worker->pass;
    loop_begin(&worker->cursor, pass->rows, 1);
    for (int64_t row; (row = loop_next(&worker->cursor)) >= 0;)
        sum_normed_experts(worker, block->details, row, pass->after + row * pass->model->hidden);
    barrier(&worker->cursor);
    add_normed(worker, block);
}

static void run_experts(Worker *worker, const Block *block) {
    const Experts *e = block->details;
    int has_post_norms = e->expert_post_norm.count || e->shared_post_norm.count;
    prepare_rows(worker, block);
    route_rows(worker, block);
    group_rows(worker, block);
    gather_rows(worker, e);
    run_expert_inputs(worker, e);
    prepare_inner(worker);
    run_expert_outputs(worker, e);
    (has_post_norms ? add_normed_experts : add_experts)(worker, block);
}
