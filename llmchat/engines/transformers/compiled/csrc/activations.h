/* Activations quantised to 8 bits in groups along each row: x = q * scale with |q| <= 127.
 *
 * A group has a scale of its own, so that an outlier costs precision in its group alone. */
#pragma once
#include "vectors.h"

#define GROUP 32      /* 64 costs twice as much perplexity, 16 gains nothing (docs/log.md) */
#define CACHE_LINE 64 /* bytes; products read so many weights of a row at once */

#if defined(USE_VNNI) || defined(USE_AVX2) || defined(USE_DOTPROD)
typedef int8_t act_t; /* there are products of bytes */
#else
typedef int16_t act_t;
#endif

typedef act_t act_x16 __attribute__((vector_size(LANES * sizeof(act_t))));
#define LANE_ACTS (4 / (int64_t)sizeof(act_t)) /* activations that one 32-bit lane multiplies */

/* Rows of activations, in tiles of `tile_rows`, in the order in which products read them:
 *
 *     q              [tiles][width / LANE_ACTS][tile_rows][LANE_ACTS]
 *     scale, offset, term  [tiles][groups][tile_rows]
 *     sum            [tiles][groups][2][tile_rows]
 *
 * width: `in` padded with zeros to whole cache lines. offset: the start value of a group's integer
 * sum, which cancels the 128 that vpdpbusd adds to each weight. sum: of q of each half of a group;
 * term: minus the sum of q * scale of a group. */
typedef struct {
    int64_t rows, tile_rows, in, width, groups;
    act_t *q;
    float *scale, *term;
    int32_t *offset, *sum;
} Activations;

INLINE float group_max(const float *group) {
    f32x16 peaks = {};
    for (int i = 0; i < GROUP; i += LANES) peaks = vector_max(vector_abs(load(group + i)), peaks);
    return reduce_max(peaks);
}

/* Quantise groups [begin, end) of x: [in] to row `row`. residual: [width], receives the rounding
 * error x - q * scale, unless NULL. */
static void quantise(const Activations *acts, int64_t row, const float *x, int64_t begin,
                     int64_t end, float *residual) {
    int64_t tile = row / acts->tile_rows, row_in_tile = row % acts->tile_rows;
    for (int64_t group = begin; group < end; group++) {
        int64_t first = group * GROUP, count = MAX(0, acts->in - first);
        float tail[GROUP] = {0};
        const float *values = x + first;
        if (count < GROUP) values = memcpy(tail, values, count * sizeof *tail);
        float peak = group_max(values), inverse = peak > 0 ? 127.0f / peak : 0.0f;
        act_t q[GROUP];
        int32_t sums[2];
        for (int i = 0; i < GROUP; i += LANES) {
            i32x16 rounded = round_to_i32(load(values + i) * inverse);
            act_x16 narrow = __builtin_convertvector(rounded, act_x16);
            memcpy(q + i, &narrow, sizeof narrow);
            sums[i / LANES] = reduce_add_i32(rounded);
            if (residual) {
                f32x16 restored = __builtin_convertvector(rounded, f32x16) * (peak / 127.0f);
                store(residual + first + i, load(values + i) - restored);
            }
        }
        act_t *target = acts->q + tile * acts->tile_rows * acts->width + first * acts->tile_rows +
                        row_in_tile * LANE_ACTS;
        for (int64_t i = 0; i < GROUP; i += LANE_ACTS)
            memcpy(target + i * acts->tile_rows, q + i, 4);
        int64_t index = (tile * acts->groups + group) * acts->tile_rows + row_in_tile;
        /* NaN quantises to arbitrary integers. */
        uint32_t total = (uint32_t)sums[0] + (uint32_t)sums[1];
        acts->scale[index] = peak / 127.0f;
        acts->offset[index] = (int32_t)(-128u * total);
        acts->term[index] = -((float)(int32_t)total * (peak / 127.0f));
        for (int half = 0; half < 2; half++)
            acts->sum[index + (tile * acts->groups + group + half) * acts->tile_rows] = sums[half];
    }
}

/* Make every product with groups [begin, end) of a row NaN. */
static void poison_groups(const Activations *acts, int64_t row, int64_t begin, int64_t end) {
    int64_t tile = row / acts->tile_rows, row_in_tile = row % acts->tile_rows;
    for (int64_t group = begin; group < end; group++)
        acts->scale[(tile * acts->groups + group) * acts->tile_rows + row_in_tile] =
            __builtin_nanf("");
}
