/* Integer products of codes, which are unsigned, and activations, of 16 rows at once.
 *
 * Each instruction set defines
 *
 *     sums_t, totals_t   integer sums and results of 16 rows
 *     codes_t, fours_t   the codes of four columns, and their activations
 *     sums_from, load_fours, load_vector, add_fours, and the functions on totals
 *
 * add_fours takes the number of the vector among the `count` of its group, and how many products of
 * pairs 16 bits hold (pairs_of, 0 for signed numbers), which only AVX2 needs. */
#pragma once
#include "grouped_codes.h"
#include "products.h"

#if defined(USE_VNNI)

typedef __m512i sums_t; /* of 16 rows */
/* Activations of four columns, for all rows, in memory: the product broadcasts them. */
typedef const int32_t __attribute__((may_alias, aligned(1))) * fours_t;

INLINE sums_t sums_from(int32_t start) { return _mm512_set1_epi32(start); }

INLINE f32x16 scaled_sums(sums_t sums, float scale) {
    return (f32x16)_mm512_cvtepi32_ps(sums) * scale;
}

/* stride: rows of the tile. */
INLINE fours_t load_fours(const act_t *q, int64_t stride, const int pairs) { return (fours_t)q; }

/* In assembly as add_products, and because gcc 12 loads what it could broadcast. */
INLINE void add_fours(sums_t *sums, const u8x64 *codes, fours_t x, const int pairs, const int v,
                      const int count) {
#ifdef LLMCHAT_EMULATED /* tests/support/avx512 */
    *sums = _mm512_dpbusd_epi32(*sums, (__m512i)*codes, _mm512_set1_epi32(*x));
#else
    __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(*sums) : "v"(*codes), "m"(*x));
#endif
}

#elif defined(USE_AVX2)
#include "grouped_avx2.h"
#elif defined(USE_DOTPROD)

typedef struct {
    int32x4_t quarter[4];
} sums_t;
typedef struct {
    int8x16_t x;
    int32x4_t shift; /* 128 times the sum of four activations */
} fours_t;

INLINE sums_t sums_from(int32_t start) {
    int32x4_t all = vdupq_n_s32(start);
    return (sums_t){{all, all, all, all}};
}

INLINE f32x16 scaled_sums(sums_t sums, float scale) {
    i32x16 all;
    memcpy(&all, &sums, sizeof all);
    return __builtin_convertvector(all, f32x16) * scale;
}

INLINE fours_t load_fours(const act_t *q, int64_t stride, const int pairs) {
    int32_t four;
    memcpy(&four, q, sizeof four);
    int8x16_t x = vreinterpretq_s8_s32(vdupq_n_s32(four));
    int32x4_t minus = vdotq_s32(vdupq_n_s32(0), vdupq_n_s8(-128), x);
    return (fours_t){x, vnegq_s32(minus)};
}

INLINE void add_fours(sums_t *sums, const u8x64 *codes, fours_t x, const int pairs, const int v,
                      const int count) {
    for (int i = 0; i < 4; i++) {
        uint8x16_t part = vld1q_u8((const uint8_t *)codes + i * 16);
#ifdef USE_I8MM
        sums->quarter[i] = vusdotq_s32(sums->quarter[i], part, x.x);
#else
        /* Its factors are signed: 128 is taken from each code, and added as the shift. */
        int8x16_t less = vreinterpretq_s8_u8(veorq_u8(part, vdupq_n_u8(128)));
        sums->quarter[i] = vdotq_s32(vaddq_s32(sums->quarter[i], x.shift), less, x.x);
#endif
    }
}

#else

typedef uint32_t sums_t __attribute__((vector_size(64))); /* signed numbers, which may wrap */
typedef struct {
    int32_t x[4];
} fours_t;

INLINE sums_t sums_from(int32_t start) { return (uint32_t)start - (sums_t){}; }

INLINE f32x16 scaled_sums(sums_t sums, float scale) {
    return __builtin_convertvector((i32x16)sums, f32x16) * scale;
}

INLINE fours_t load_fours(const act_t *q, int64_t stride, const int pairs) {
    return (fours_t){{q[0], q[1], q[2 * stride], q[2 * stride + 1]}};
}

INLINE void add_fours(sums_t *sums, const u8x64 *codes, fours_t x, const int pairs, const int v,
                      const int count) {
    i32x16 fours;
    memcpy(&fours, codes, sizeof fours);
    for (int j = 0; j < 4; j++) *sums += (sums_t)((fours >> 8 * j & 255) * x.x[j]);
}

#endif

/* Whether codes of 8 bits become signed numbers before they are multiplied. */
#ifdef USE_AVX2
#define TAKES_SIGNED 1
#else
#define TAKES_SIGNED 0
typedef u8x64 codes_t;
typedef f32x16 totals_t;

INLINE int pairs_of(const int bits, const int has_table) { return 0; }
INLINE codes_t load_vector(const u8x64 *codes, const int pairs) { return *codes; }
INLINE totals_t load_totals(const float *p) { return load(p); }
INLINE void store_totals(float *p, totals_t totals) { store(p, totals); }
INLINE totals_t plus_totals(totals_t a, totals_t b) { return a + b; }
/* totals + term * minimum */
INLINE totals_t plus_minimum(totals_t totals, float term, const f32x16 *minimum) {
    return fused_madd(splat(term), *minimum, totals);
}
/* totals + sums * x * scale */
INLINE totals_t plus_products(totals_t totals, sums_t sums, float x, const f32x16 *scale) {
    return fused_madd(scaled_sums(sums, x), *scale, totals);
}
#endif
