/* Integer products of codes, which are unsigned, and activations, of 16 rows at once. */
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
INLINE fours_t load_fours(const act_t *q, int64_t stride) { return (fours_t)q; }

/* In assembly as add_products, and because gcc 12 loads what it could broadcast. */
INLINE void add_fours(sums_t *sums, const u8x64 *codes, fours_t x) {
    __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(*sums) : "v"(*codes), "m"(*x));
}

#elif defined(USE_AVX2)

typedef struct {
    __m256i half[2];
} sums_t;
typedef struct {
    __m256i even, odd;
} fours_t;

INLINE sums_t sums_from(int32_t start) {
    __m256i all = _mm256_set1_epi32(start);
    return (sums_t){{all, all}};
}

INLINE f32x16 scaled_sums(sums_t sums, float scale) {
    i32x16 all;
    memcpy(&all, &sums, sizeof all);
    return __builtin_convertvector(all, f32x16) * scale;
}

INLINE fours_t load_fours(const act_t *q, int64_t stride) {
    uint32_t first, second;
    memcpy(&first, q, sizeof first), memcpy(&second, q + 2 * stride, sizeof second);
    return (fours_t){_mm256_set1_epi32((int32_t)((first & 0xffff) | second << 16)),
                     _mm256_set1_epi32((int32_t)(first >> 16 | (second & 0xffff0000)))};
}

INLINE void add_fours(sums_t *sums, const u8x64 *codes, fours_t x) {
    const __m256i mask = _mm256_set1_epi32(0x00ff00ff);
    for (int i = 0; i < 2; i++) {
        __m256i all = _mm256_loadu_si256((const __m256i *)codes + i);
        __m256i even = _mm256_madd_epi16(_mm256_and_si256(all, mask), x.even);
        __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(all, 8), x.odd);
        sums->half[i] = _mm256_add_epi32(sums->half[i], _mm256_add_epi32(even, odd));
    }
}

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

INLINE fours_t load_fours(const act_t *q, int64_t stride) {
    int32_t four;
    memcpy(&four, q, sizeof four);
    int8x16_t x = vreinterpretq_s8_s32(vdupq_n_s32(four));
    int32x4_t minus = vdotq_s32(vdupq_n_s32(0), vdupq_n_s8(-128), x);
    return (fours_t){x, vnegq_s32(minus)};
}

INLINE void add_fours(sums_t *sums, const u8x64 *codes, fours_t x) {
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

INLINE fours_t load_fours(const act_t *q, int64_t stride) {
    return (fours_t){{q[0], q[1], q[2 * stride], q[2 * stride + 1]}};
}

INLINE void add_fours(sums_t *sums, const u8x64 *codes, fours_t x) {
    i32x16 fours;
    memcpy(&fours, codes, sizeof fours);
    for (int j = 0; j < 4; j++) *sums += (sums_t)((fours >> 8 * j & 255) * x.x[j]);
}

#endif
