/* Arithmetic on vectors of 16 numbers, in the vector extensions of gcc and clang, so that the same
 * source serves every processor. Integer and bfloat16 dot products, for which these have no
 * operation, are elsewhere (products_*.h, attention_products.h).
 *
 * The file must be compiled with -ffp-contract=off: a multiplication and an addition must round in
 * the same way wherever a function is inlined, because row invariance (step.c) depends on it. */
#pragma once
#include <stdint.h>
#include <string.h>

/* The instruction set: what -march=native offers, or nothing but C with -DLLMCHAT_PLAIN. */
#ifndef LLMCHAT_PLAIN
#if defined(__AVX512F__)
#define USE_AVX512 1
#endif
#if defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512VNNI__)
#define USE_VNNI 1 /* integer dot products of 512 bits */
#elif defined(__AVX2__)
#define USE_AVX2 1
#endif
#if defined(USE_VNNI) && defined(__AVX512BF16__)
#define USE_BF16 1 /* bfloat16 dot products of 512 bits */
#endif
#if defined(USE_AVX2) && !defined(USE_AVX512)
#define USE_HALVES 1 /* see halves.h */
#endif
#if defined(__aarch64__)
#define USE_NEON 1
#if defined(__ARM_FEATURE_DOTPROD)
#define USE_DOTPROD 1 /* integer dot products of signed bytes */
#endif
#if defined(USE_DOTPROD) && defined(__ARM_FEATURE_MATMUL_INT8)
#define USE_I8MM 1 /* and of unsigned with signed bytes */
#endif
#endif
#endif

#if defined(USE_AVX512) || defined(USE_AVX2)
#include <immintrin.h>
#elif defined(USE_NEON)
#include <arm_neon.h>
#endif

#define LANES 16
#define INLINE static inline __attribute__((always_inline))
#define ROUND_UP(n, to) (((n) + (to) - 1) / (to) * (to))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

typedef float f32x16 __attribute__((vector_size(64)));
typedef int32_t i32x16 __attribute__((vector_size(64)));
typedef uint16_t u16x16 __attribute__((vector_size(32)));
typedef uint8_t u8x16 __attribute__((vector_size(16)));
typedef uint16_t bf16;

INLINE f32x16 load(const float *p) {
    f32x16 v;
    memcpy(&v, p, sizeof v);
    return v;
}
INLINE void store(float *p, f32x16 v) { memcpy(p, &v, sizeof v); }
INLINE f32x16 splat(float x) { return x - (f32x16){}; }
INLINE f32x16 blend(i32x16 mask, f32x16 yes, f32x16 no) {
    return (f32x16)((mask & (i32x16)yes) | (~mask & (i32x16)no));
}

#ifdef USE_AVX2
#include "halves.h"
#endif

INLINE f32x16 vector_max(f32x16 a, f32x16 b) {
#ifdef USE_AVX512
    return (f32x16)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(USE_AVX2)
    Halves x = {a}, y = {b};
    for (int i = 0; i < 2; i++)
        x.half[i] = (f32x8)_mm256_max_ps((__m256)x.half[i], (__m256)y.half[i]);
    return x.all;
#else
    return blend(a > b, a, b);
#endif
}
INLINE f32x16 vector_abs(f32x16 a) { return (f32x16)((i32x16)a & 0x7fffffff); }

/* a * b + c, rounded once where the processor has a fused operation. */
INLINE f32x16 fused_madd(f32x16 a, f32x16 b, f32x16 c) {
#ifdef USE_AVX512
    return (f32x16)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(USE_AVX2)
    Halves x = {a}, y = {b}, z = {c};
    for (int i = 0; i < 2; i++) z.half[i] = fused_madd8(x.half[i], y.half[i], z.half[i]);
    return z.all;
#elif defined(USE_NEON)
    union {
        f32x16 all;
        float32x4_t quarter[4];
    } x = {a}, y = {b}, z = {c};
    for (int i = 0; i < 4; i++) z.quarter[i] = vfmaq_f32(z.quarter[i], x.quarter[i], y.quarter[i]);
    return z.all;
#else
    return a * b + c;
#endif
}

INLINE float bf16_to_float(bf16 half) {
    uint32_t bits = (uint32_t)half << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

INLINE f32x16 load_bf16(const bf16 *p) {
#ifdef USE_AVX512
    /* gcc 12 splits the portable conversion into two halves and joins them again. */
    return (f32x16)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)),
                                     16);
#endif
    u16x16 v;
    memcpy(&v, p, sizeof v);
    return (f32x16)(__builtin_convertvector(v, i32x16) << 16);
}

/* Round to the nearest bfloat16, ties to even; finite numbers only. */
INLINE void store_bf16(bf16 *p, f32x16 v) {
#ifdef USE_BF16
    __m256bh half = _mm512_cvtneps_pbh((__m512)v);
    memcpy(p, &half, sizeof half);
#else
    i32x16 bits = (i32x16)v;
    bits += 0x7fff + ((bits >> 16) & 1);
    u16x16 half = __builtin_convertvector((bits >> 16) & 0xffff, u16x16);
    memcpy(p, &half, sizeof half);
#endif
}

INLINE bf16 float_to_bf16(float x) {
    bf16 halves[LANES];
    store_bf16(halves, splat(x));
    return halves[0];
}

INLINE float reduce_add(f32x16 v) {
#ifdef USE_AVX512
    return _mm512_reduce_add_ps((__m512)v);
#elif defined(USE_AVX2)
    return REDUCE_HALVES(v, add);
#else
    float s[LANES];
    store(s, v);
    for (int width = LANES / 2; width; width /= 2)
        for (int i = 0; i < width; i++) s[i] += s[i + width];
    return s[0];
#endif
}

INLINE float reduce_max(f32x16 v) {
#ifdef USE_AVX512
    return _mm512_reduce_max_ps((__m512)v);
#elif defined(USE_AVX2)
    return REDUCE_HALVES(v, max);
#else
    float s[LANES];
    store(s, v);
    for (int width = LANES / 2; width; width /= 2)
        for (int i = 0; i < width; i++) s[i] = MAX(s[i], s[i + width]);
    return s[0];
#endif
}

/* Wraps around on overflow: NaN activations quantise to arbitrary integers, whose products are set
 * to NaN later. */
INLINE int32_t reduce_add_i32(i32x16 v) {
#if defined(USE_AVX512) && !defined(LLMCHAT_CHECKED)
    return _mm512_reduce_add_epi32((__m512i)v);
#elif defined(USE_AVX2)
    Halves x = {.ints = v};
    __m256i eight = _mm256_add_epi32(x.int_half[0], x.int_half[1]);
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(four, _mm_shuffle_epi32(four, 0xb1)));
#else
    uint32_t total = 0;
    for (int lane = 0; lane < LANES; lane++) total += (uint32_t)v[lane];
    return (int32_t)total;
#endif
}

/* Round to the nearest integer, ties to even, for |v| < 2^22: adding 1.5 * 2^23 shifts the fraction
 * out of the mantissa. */
INLINE i32x16 round_to_i32(f32x16 v) { return (i32x16)(v + 12582912.0f) - 0x4b400000; }

/* e^v within 2 units in the last place (the polynomial of Cephes); 0 below -87. For vectors of any
 * length. */
#define DEFINE_EXP(name, floats, ints, madd)                                                       \
    INLINE floats name(floats v) {                                                                 \
        const floats zero = {};                                                                    \
        ints underflows = v < -87.0f, overflows = v > 88.0f;                                       \
        floats x = (floats)((underflows & (ints)(zero - 87.0f)) |                                  \
                            (overflows & (ints)(zero + 88.0f)) |                                   \
                            (~(underflows | overflows) & (ints)v));                                \
        ints power = (ints)(x * 1.44269504f + 12582912.0f) - 0x4b400000;                           \
        floats n = __builtin_convertvector(power, floats);                                         \
        floats r = madd(n, zero - 0.693359375f, x);                                                \
        r = madd(n, zero + 2.12194440e-4f, r);                                                     \
        floats p = zero + 1.9875691500e-4f;                                                        \
        p = madd(p, r, zero + 1.3981999507e-3f);                                                   \
        p = madd(p, r, zero + 8.3334519073e-3f);                                                   \
        p = madd(p, r, zero + 4.1665795894e-2f);                                                   \
        p = madd(p, r, zero + 1.6666665459e-1f);                                                   \
        p = madd(p, r, zero + 5.0000001201e-1f);                                                   \
        p = madd(p, r * r, r + 1.0f);                                                              \
        p *= (floats)((power + 127) << 23);                                                        \
        return (floats)(~underflows & (ints)p);                                                    \
    }

#ifdef USE_HALVES
DEFINE_EXP(vector_exp8, f32x8, i32x8, fused_madd8)

INLINE f32x16 vector_exp(f32x16 v) {
    Halves x = {v};
    for (int i = 0; i < 2; i++) x.half[i] = vector_exp8(x.half[i]);
    return x.all;
}
#else
DEFINE_EXP(vector_exp, f32x16, i32x16, fused_madd)
#endif

/* 2^v for v <= 0, with a relative error of one in a million. AVX-512 scales by a power of two in
 * one instruction, which halves the number of operations. */
INLINE f32x16 vector_exp2(f32x16 v) {
#ifdef USE_AVX512
    f32x16 n = (f32x16)_mm512_roundscale_ps((__m512)v,
                                            _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC),
           r = v - n;
    /* The minimax polynomial of the relative error for |r| <= 1/2. */
    f32x16 p = splat(1.327647069e-3f);
    p = fused_madd(p, r, splat(9.675541324e-3f));
    p = fused_madd(p, r, splat(5.550713278e-2f));
    p = fused_madd(p, r, splat(2.402211972e-1f));
    p = fused_madd(p, r, splat(6.931469671e-1f));
    p = fused_madd(p, r, splat(1.0f));
    return (f32x16)_mm512_scalef_ps((__m512)p, (__m512)n);
#else
    return vector_exp(v * 0.693147181f);
#endif
}
