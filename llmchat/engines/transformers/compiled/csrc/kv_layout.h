/* The order of keys and values in a KV cache: as products take them, in bfloat16, with two
 * neighbours of a sum side by side:
 *
 *     keys    [kv_heads][capacity / 16][head_dim / 2][16 keys][2]
 *     values  [kv_heads][capacity / SPAN][head_dim / 16][SPAN / 2][16 dimensions][2]
 *
 * A span of one head is SPAN x head_dim contiguous numbers and needs no transposition. Beyond the
 * last position, keys may be anything, because their scores are ignored; values must be finite,
 * because they are multiplied by zero. forward.py has the same layout (CompiledCache). */
#pragma once
#include "vectors.h"

#define SPAN 256 /* positions that attention takes at once */

#ifdef USE_BF16
typedef bf16 half_t; /* queries, keys, probabilities and values; sums in fp32 */
#define PAIR 2
#else
typedef float half_t;
#define PAIR 1
#endif

INLINE void store_half(half_t *p, f32x16 v) {
#ifdef USE_BF16
    store_bf16(p, v);
#else
    store(p, v);
#endif
}

/* Write the key [dim] of a position into the buffer of its head. */
static void write_key(bf16 *head, int64_t position, const float *key, int64_t dim) {
    bf16 *panel = head + position / LANES * LANES * dim + position % LANES * 2, half[LANES];
    for (int64_t d = 0; d < dim; d += LANES) {
        store_bf16(half, load(key + d));
        for (int64_t i = 0; i < LANES; i += 2)
            memcpy(panel + (d + i) * LANES, half + i, 2 * sizeof *half);
    }
}

/* The same for a value. An even position clears the place of the odd one after it. */
static void write_value(bf16 *head, int64_t position, const float *value, int64_t dim) {
    bf16 *pair = head + position / SPAN * SPAN * dim + position % SPAN / 2 * 2 * LANES;
    for (int64_t d = 0; d < dim; d += LANES, pair += SPAN * LANES) {
        u16x16 half;
        i32x16 both;
        store_bf16((bf16 *)&half, load(value + d));
        i32x16 new = __builtin_convertvector(half, i32x16);
        memcpy(&both, pair, sizeof both);
        both = position % 2 ? (both & 0xffff) | new << 16 : new;
        memcpy(pair, &both, sizeof both);
    }
}

#ifndef USE_BF16
/* Unzip pairs [count][16][2] into out [2 * count][16]. */
static void unzip_pairs(const bf16 *pairs, int64_t count, float *out) {
    for (int64_t i = 0; i < count; i++) {
        i32x16 both;
        memcpy(&both, pairs + i * 2 * LANES, sizeof both);
        store(out + i * 2 * LANES, (f32x16)(both << 16));
        store(out + i * 2 * LANES + LANES, (f32x16)(both & (int32_t)0xffff0000));
    }
}
#endif
