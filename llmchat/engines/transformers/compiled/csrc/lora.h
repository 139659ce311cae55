/* Live low-rank adapters (Hu et al. 2021): y += strength * scale * B A x, in bfloat16 with fp32
 * sums, for sequences that may each have other adapters. */
#pragma once
#include "layout.h"

#define RANKS_PER_UNIT 16 /* ranks that one unit of work computes */
#define A_PREFETCH 2048   /* numbers of A that are prefetched ahead of their use */

/* The sequence of a row; final: `row` counts the rows that want logits. */
static const SequenceRows *sequence_at(const Pass *pass, int64_t row, int final) {
    return pass->sequences + pass->sequence_of[final ? pass->logit_rows[row] : row];
}

/* Four independent sums, because each addition to a sum waits for the one before it. */
static __attribute__((noinline)) float dot_bf16(const bf16 *a, const float *x, int64_t count) {
    f32x16 totals[4] = {};
    int64_t i = 0;
    for (; i + 4 * LANES <= count; i += 4 * LANES) {
        for (int64_t k = 0; k < 4 * LANES; k += 64 / sizeof *a)
            __builtin_prefetch(a + A_PREFETCH + i + k, 0, 3);
        for (int64_t k = 0; k < 4; k++) {
            int64_t at = i + k * LANES;
            totals[k] = fused_madd(load_bf16(a + at), load(x + at), totals[k]);
        }
    }
    for (; i + LANES <= count; i += LANES)
        totals[0] = fused_madd(load_bf16(a + i), load(x + i), totals[0]);
    float sum = reduce_add((totals[0] + totals[1]) + (totals[2] + totals[3]));
    for (; i < count; i++) sum += bf16_to_float(a[i]) * x[i];
    return sum;
}

/* RANKS_PER_UNIT ranks of factor * A x from `begin` on, counted over the adapters of `count`
 * linears that share x: [in]. hidden: [ranks] */
static void lora_ranks(const SequenceRows *sequence, int64_t linear, int64_t count, const float *x,
                       int64_t in, int64_t begin, float factor, bf16 *hidden) {
    int64_t at = 0;
    for (int64_t l = linear; l < linear + count; l++)
        for (int64_t a = 0; a < sequence->adapter_count; a++) {
            const Lora *lora = sequence->adapters[a] + l;
            int64_t end = MIN(lora->rank, begin + RANKS_PER_UNIT - at);
            for (int64_t r = MAX(0, begin - at); r < end; r++)
                hidden[at + r] = float_to_bf16(factor * lora->scale * sequence->strengths[a] *
                                               dot_bf16(lora->a + r * in, x, in));
            at += lora->rank;
        }
}

/* Compute A x of all adapters for `count` linears that share x. Other threads may still be at work
 * on return: wait for `lora_cursor` before the result is used. */
static void lora_down(Worker *worker, int64_t linear, int64_t count, int final) {
    const Pass *pass = worker->pass;
    if (!pass->ranks) return;
    int64_t chunks = (pass->ranks + RANKS_PER_UNIT - 1) / RANKS_PER_UNIT;
    loop_begin(&worker->cursor, worker->acts.rows * chunks, 1);
    for (int64_t unit; (unit = loop_next(&worker->cursor)) >= 0;) {
        int64_t row = unit / chunks, in = worker->acts.in;
        lora_ranks(sequence_at(pass, row, final), linear, count, worker->unquantised + row * in, in,
                   unit % chunks * RANKS_PER_UNIT, 1.0f, pass->lora_hidden + row * pass->ranks);
    }
    worker->lora_cursor = worker->cursor;
}

/* total += two ranks of 16 columns of B times two numbers of A x. */
INLINE f32x16 add_rank_pair(f32x16 total, const bf16 *hidden, const bf16 *pair) {
#ifdef USE_BF16
    int32_t both;
    memcpy(&both, hidden, sizeof both);
    return (f32x16)_mm512_dpbf16_ps((__m512)total, (__m512bh)_mm512_set1_epi32(both),
                                    (__m512bh)_mm512_loadu_si512(pair));
#else
    i32x16 both;
    memcpy(&both, pair, sizeof both);
    total = fused_madd(splat(bf16_to_float(hidden[0])), (f32x16)(both << 16), total);
    return fused_madd(splat(bf16_to_float(hidden[1])), (f32x16)(both & (int32_t)0xffff0000), total);
#endif
}

/* y + B times A x for 16 outputs of a row from `column` on. hidden: A x of this linear's first
 * adapter. */
INLINE f32x16 lora_up(f32x16 y, int64_t column, const SequenceRows *sequence, int64_t linear,
                      const bf16 *hidden) {
    for (int64_t a = 0; a < sequence->adapter_count; a++) {
        const Lora *lora = sequence->adapters[a] + linear;
        const bf16 *b = lora->b + column * lora->rank;
        f32x16 totals[4] = {};
        int64_t r = 0;
        for (; r + 8 <= lora->rank; r += 8)
            for (int64_t k = 0; k < 4; k++) {
                int64_t at = r + 2 * k;
                totals[k] = add_rank_pair(totals[k], hidden + at, b + at * LANES);
            }
        for (; r < lora->rank; r += 2)
            totals[0] = add_rank_pair(totals[0], hidden + r, b + r * LANES);
        y += (totals[0] + totals[1]) + (totals[2] + totals[3]);
        hidden += lora->rank;
    }
    return y;
}
