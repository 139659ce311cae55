/* The rows of each expert. A place is a row of an expert's activations: places of one expert follow
 * each other, from a whole tile on. Behind those of the chosen experts come the places of the
 * shared expert, one for each row. */
#pragma once
#include "routing.h"

/* The places of the first `count` groups. */
static int64_t places_of(const Worker *worker, int64_t count) {
    const ExpertGroup *last = worker->experts.groups + count - 1;
    return count ? last->first + last->count : 0;
}

/* Add the group of expert `expert`, whose `count` places are not yet filled. */
static ExpertGroup *add_group(Worker *worker, const Block *block, int64_t expert, int64_t count) {
    const Experts *e = block->details;
    int64_t per_shared = e->shared_inner ? e->shared_inputs + 1 : 0;
    int64_t linear = per_shared + expert * (e->inputs + 1);
    int64_t first = ROUND_UP(places_of(worker, worker->experts.group_count), TILE_ROWS);
    ExpertGroup *group = worker->experts.groups + worker->experts.group_count++;
    *group = (ExpertGroup){.linear = block->linear + linear,
                           .number = block->first_linear + linear,
                           .activation = &e->activation,
                           .inputs = e->inputs,
                           .inner = e->inner,
                           .first = first,
                           .count = count,
                           .inner_first = first * ROUND_UP(e->inner, CACHE_LINE)};
    return group;
}

static void add_shared_group(Worker *worker, const Block *block) {
    const Experts *e = block->details;
    if (!e->shared_inner) return;
    ExpertGroup *group = add_group(worker, block, 0, worker->pass->rows);
    group->linear = block->linear, group->number = block->first_linear;
    group->activation = &e->shared_activation;
    group->inputs = e->shared_inputs, group->inner = e->shared_inner, group->is_shared = 1;
    for (int64_t row = 0; row < group->count; row++) {
        worker->experts.row_of[group->first + row] = row;
        worker->experts.slot_of[group->first + row] = -1;
    }
}

/* Every thread groups the slots by itself: that takes less time than a barrier. */
static void group_rows(Worker *worker, const Block *block) {
    const Pass *pass = worker->pass;
    const Experts *e = block->details;
    int64_t slots = pass->rows * e->top;
    int32_t *counts = worker->experts.counts;
    const int32_t *chosen = chosen_by(pass, block);
    memset(counts, 0, e->experts * sizeof *counts);
    for (int64_t slot = 0; slot < slots; slot++) counts[chosen[slot]]++;
    worker->experts.group_count = 0;
    for (int64_t x = 0; x < e->experts; x++) {
        if (!counts[x]) continue;
        /* From here on, the next place of the expert. */
        counts[x] = add_group(worker, block, x, counts[x])->first;
    }
    worker->experts.routed = worker->experts.group_count;
    for (int64_t slot = 0; slot < slots; slot++) {
        int32_t place = counts[chosen[slot]]++;
        worker->experts.row_of[place] = slot / e->top, worker->experts.slot_of[place] = slot;
        worker->experts.place_of[slot] = place;
    }
    add_shared_group(worker, block);
}

/* The part of activations that belongs to `count` places; q: where it begins. */
static Activations part_of(Activations acts, int64_t q, int64_t count, int64_t in) {
    return moved_by(with_shape(acts, count, in), q);
}

/* What the inputs of a group read. */
static Activations group_input(const Worker *worker, const ExpertGroup *group) {
    /* A single row is its own expert's input, whichever that is. */
    if (group->is_shared || worker->experts.reads_rows) return worker->acts;
    int64_t hidden = worker->pass->model->hidden;
    return part_of(worker->pass->experts.input, group->first * ROUND_UP(hidden, CACHE_LINE),
                   group->count, hidden);
}

/* The group of a place, of those that are in use. */
static const ExpertGroup *group_of_place(const Worker *worker, int64_t place) {
    const ExpertGroup *group = worker->experts.groups;
    while (place >= group->first + group->count) group++;
    return group;
}
