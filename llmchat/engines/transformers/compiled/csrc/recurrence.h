/* What Gated DeltaNet, Mamba-2 and RWKV-7 do with a state: for each token it decays, an outer
 * product is added, and a query reads it. Tokens follow each other one by one, whatever is read
 * together, so that their numbers do not depend on it. Columns of the state do not depend on each
 * other: a unit of work takes a few of them through all rows of a sequence. */
#pragma once
#include "convolution.h"

#define MOST_VECTORS (MOST_COLUMNS / LANES)
#define CHAINS 4 /* sums that are independent, so that no addition waits for the one before */
/* From so many rows on, a unit works on a copy of its columns that is contiguous. */
#define COPIED_FROM 3

/* A block of columns of a state [depth, ...], where they are or copied. */
typedef struct {
    float *numbers;
    int64_t depth, stride;
} Columns;

INLINE f32x16 total_of(const f32x16 *sums) { return (sums[0] + sums[1]) + (sums[2] + sums[3]); }

/* k S of `n` vectors of columns. */
INLINE void read_columns(const Columns *s, const float *k, f32x16 *out, const int n) {
    f32x16 sums[MOST_VECTORS][CHAINS] = {};
    for (int64_t i = 0; i < s->depth; i += CHAINS)
        for (int chain = 0; chain < CHAINS; chain++)
            for (int v = 0; v < n; v++)
                sums[v][chain] = fused_madd(load(s->numbers + (i + chain) * s->stride + v * LANES),
                                            splat(k[i + chain]), sums[v][chain]);
    for (int v = 0; v < n; v++) out[v] = total_of(sums[v]);
}

/* S = decay * S + k added, then q S. */
INLINE void update_columns(const Columns *s, float decay, const float *k, const f32x16 *added,
                           const float *q, f32x16 *out, const int n) {
    f32x16 sums[MOST_VECTORS][CHAINS] = {};
    for (int64_t i = 0; i < s->depth; i += CHAINS)
        for (int chain = 0; chain < CHAINS; chain++)
            for (int v = 0; v < n; v++) {
                float *p = s->numbers + (i + chain) * s->stride + v * LANES;
                f32x16 new = fused_madd(splat(k[i + chain]), added[v], load(p) * decay);
                store(p, new);
                sums[v][chain] = fused_madd(splat(q[i + chain]), new, sums[v][chain]);
            }
    for (int v = 0; v < n; v++) out[v] = total_of(sums[v]);
}

/* S = decay * S + k added, where each row of S decays on its own, then q S. b, found: S += b found
 * too, or NULL. */
INLINE void update_channels(const Columns *s, const float *decay, const float *b,
                            const f32x16 *found, const float *k, const f32x16 *added,
                            const float *q, f32x16 *out, const int n) {
    f32x16 sums[MOST_VECTORS][CHAINS] = {};
    for (int64_t i = 0; i < s->depth; i += CHAINS)
        for (int chain = 0; chain < CHAINS; chain++)
            for (int v = 0; v < n; v++) {
                float *p = s->numbers + (i + chain) * s->stride + v * LANES;
                f32x16 new = load(p) * decay[i + chain];
                if (b) new = fused_madd(splat(b[i + chain]), found[v], new);
                new = fused_madd(splat(k[i + chain]), added[v], new);
                store(p, new);
                sums[v][chain] = fused_madd(splat(q[i + chain]), new, sums[v][chain]);
            }
    for (int v = 0; v < n; v++) out[v] = total_of(sums[v]);
}

/* Columns in one unit: as many as a first-level cache holds. */
static int64_t columns_per_unit(int64_t width) {
    return width % (MOST_VECTORS * LANES) == 0 ? MOST_VECTORS * LANES
           : width % (2 * LANES) == 0          ? 2 * LANES
                                               : LANES;
}

static void copy_columns(float *to, int64_t to_stride, const float *from, int64_t from_stride,
                         int64_t depth, int64_t width) {
    for (int64_t i = 0; i < depth; i++)
        memcpy(to + i * to_stride, from + i * from_stride, width * sizeof *to);
}

/* `columns` columns of a state [depth, width] for `rows` rows. */
static Columns take_columns(const Worker *worker, float *state, int64_t width, int64_t depth,
                            int64_t columns, int64_t rows) {
    if (rows < COPIED_FROM) return (Columns){state, depth, width};
    copy_columns(worker->columns, columns, state, width, depth, columns);
    return (Columns){worker->columns, depth, columns};
}

static void put_columns_back(const Columns *s, float *state, int64_t width, int64_t columns) {
    if (s->numbers != state) copy_columns(state, width, s->numbers, columns, s->depth, columns);
}

INLINE float softplus(float x) { return x > 20.0f ? x : log1pf(expf(x)); }
