/* Halves of vectors of 16 numbers, for processors with AVX2.
 *
 * Without AVX-512, gcc keeps a vector of 64 bytes in memory and loads and stores it for each
 * operation. Hot loops therefore take halves (USE_HALVES), which stay in registers. */
#pragma once

typedef float f32x8 __attribute__((vector_size(32), may_alias));
typedef int32_t i32x8 __attribute__((vector_size(32)));

typedef union {
    f32x16 all;
    i32x16 ints;
    f32x8 half[2];
    __m256i int_half[2];
} Halves;

INLINE f32x8 load8(const float *p) { return (f32x8)_mm256_loadu_ps(p); }
INLINE void store8(float *p, f32x8 v) { _mm256_storeu_ps(p, (__m256)v); }

/* As fused_madd. */
INLINE f32x8 fused_madd8(f32x8 a, f32x8 b, f32x8 c) {
#ifdef __FMA__
    return (f32x8)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    return a * b + c;
#endif
}

/* The sum or the maximum of 16 numbers; op: add or max. Halves meet first, as in vectors.h. */
#define REDUCE_HALVES(v, op)                                                                       \
    ({                                                                                             \
        Halves both = {v};                                                                         \
        __m256 eight = _mm256_##op##_ps((__m256)both.half[0], (__m256)both.half[1]);               \
        __m128 four = _mm256_castps256_ps128(eight);                                               \
        four = _mm_##op##_ps(four, _mm256_extractf128_ps(eight, 1));                               \
        four = _mm_##op##_ps(four, _mm_movehl_ps(four, four));                                     \
        _mm_cvtss_f32(_mm_##op##_ss(four, _mm_movehdup_ps(four)));                                 \
    })
