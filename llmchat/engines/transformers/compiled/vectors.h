/* Sixteen numbers at a time. Written with the vector types of gcc and clang, so that one text serves every processor; only the products of
 * whole numbers and of bfloat16 numbers are in the processor's own words (products.h).
 *
 * Compiled with -ffp-contract=off: a sum is the same sum wherever a function is inlined, which row invariance (step.c) depends on. */
#pragma once
#include <stdint.h>
#include <string.h>

#if !defined(LLMCHAT_PLAIN) && (defined(__AVX512F__) || defined(__AVX2__))
#include <immintrin.h>
#endif
#if !defined(LLMCHAT_PLAIN) && defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512VNNI__)
#define USE_VNNI 1
#elif !defined(LLMCHAT_PLAIN) && defined(__AVX2__)
#define USE_AVX2 1
#endif
#if defined(USE_VNNI) && defined(__AVX512BF16__)
#define USE_BF16 1
#endif

#define LANES 16
#define INLINE static inline __attribute__((always_inline))
#define UP(n, to) (((n) + (to) - 1) / (to) * (to))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

typedef float F16 __attribute__((vector_size(64)));
typedef int32_t I16 __attribute__((vector_size(64)));
typedef uint16_t H16 __attribute__((vector_size(32)));
typedef uint16_t bf16;

INLINE F16 load(const float *p) { F16 v; memcpy(&v, p, sizeof v); return v; }
INLINE void store(float *p, F16 v) { memcpy(p, &v, sizeof v); }
INLINE F16 all(float x) { return x - (F16){}; }
INLINE F16 choose(I16 mask, F16 yes, F16 no) { return (F16)((mask & (I16)yes) | (~mask & (I16)no)); }
INLINE F16 larger(F16 a, F16 b) {
#if !defined(LLMCHAT_PLAIN) && defined(__AVX512F__)
    return (F16)_mm512_max_ps((__m512)a, (__m512)b);
#else
    return choose(a > b, a, b);
#endif
}
INLINE F16 magnitude(F16 a) { return (F16)((I16)a & 0x7fffffff); }

/* a * b + c, rounded once where the processor can. */
INLINE F16 madd(F16 a, F16 b, F16 c) {
#if !defined(LLMCHAT_PLAIN) && defined(__AVX512F__)
    return (F16)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif !defined(LLMCHAT_PLAIN) && defined(__FMA__)
    union { F16 all; __m256 half[2]; } x = {a}, y = {b}, z = {c};
    z.half[0] = _mm256_fmadd_ps(x.half[0], y.half[0], z.half[0]);
    z.half[1] = _mm256_fmadd_ps(x.half[1], y.half[1], z.half[1]);
    return z.all;
#else
    return a * b + c;
#endif
}

INLINE float float_of(bf16 half) {
    uint32_t bits = (uint32_t)half << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

INLINE F16 from_bf16(const bf16 *p) {
#if !defined(LLMCHAT_PLAIN) && defined(__AVX512F__)
    /* gcc 12 makes two halves of the conversion below, and puts them together again. */
    return (F16)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16);
#endif
    H16 v;
    memcpy(&v, p, sizeof v);
    return (F16)(__builtin_convertvector(v, I16) << 16);
}

/* Rounded to the nearest, ties to even; finite numbers only. */
INLINE void to_bf16(bf16 *p, F16 v) {
#ifdef USE_BF16
    __m256bh half = _mm512_cvtneps_pbh((__m512)v);
    memcpy(p, &half, sizeof half);
#else
    I16 bits = (I16)v;
    bits += 0x7fff + ((bits >> 16) & 1);
    H16 half = __builtin_convertvector((bits >> 16) & 0xffff, H16);
    memcpy(p, &half, sizeof half);
#endif
}

INLINE bf16 half_of(float x) {
    bf16 halves[LANES];
    to_bf16(halves, all(x));
    return halves[0];
}

INLINE float sum(F16 v) {
#if !defined(LLMCHAT_PLAIN) && defined(__AVX512F__)
    return _mm512_reduce_add_ps((__m512)v);
#else
    float s[LANES];
    store(s, v);
    for (int width = LANES / 2; width; width /= 2)
        for (int i = 0; i < width; i++) s[i] += s[i + width];
    return s[0];
#endif
}

INLINE float largest(F16 v) {
#if !defined(LLMCHAT_PLAIN) && defined(__AVX512F__)
    return _mm512_reduce_max_ps((__m512)v);
#else
    float s[LANES];
    store(s, v);
    for (int width = LANES / 2; width; width /= 2)
        for (int i = 0; i < width; i++) s[i] = MAX(s[i], s[i + width]);
    return s[0];
#endif
}

/* Wraps around: activations that are NaN become any whole numbers, whose products are made NaN. */
INLINE int32_t total_of(I16 v) {
#if !defined(LLMCHAT_PLAIN) && defined(__AVX512F__) && !defined(LLMCHAT_CHECKED)
    return _mm512_reduce_add_epi32((__m512i)v);
#else
    uint32_t total = 0;
    for (int lane = 0; lane < LANES; lane++) total += (uint32_t)v[lane];
    return (int32_t)total;
#endif
}

/* To the nearest whole number, ties to even, for |v| < 2^22: what is added pushes the fraction out of the mantissa. */
INLINE I16 nearest(F16 v) { return (I16)(v + 12582912.0f) - 0x4b400000; }

/* e^v within 2 units in the last place (Cephes' polynomial); 0 below -87. */
INLINE F16 exponential(F16 v) {
    I16 vanishes = v < -87.0f;
    F16 x = choose(vanishes, all(-87.0f), v);
    x = choose(x > 88.0f, all(88.0f), x);
    I16 power = nearest(x * 1.44269504f);
    F16 n = __builtin_convertvector(power, F16);
    F16 r = madd(n, all(2.12194440e-4f), madd(n, all(-0.693359375f), x));
    F16 p = all(1.9875691500e-4f);
    p = madd(p, r, all(1.3981999507e-3f));
    p = madd(p, r, all(8.3334519073e-3f));
    p = madd(p, r, all(4.1665795894e-2f));
    p = madd(p, r, all(1.6666665459e-1f));
    p = madd(p, r, all(5.0000001201e-1f));
    p = madd(p, r * r, r + 1.0f);
    p *= (F16)((power + 127) << 23);
    return choose(vanishes, (F16){}, p);
}

/* 2^v for v <= 0, to one part in a million: in half the steps where the processor scales by a power of two in one instruction. */
INLINE F16 vanishing(F16 v) {
#if !defined(LLMCHAT_PLAIN) && defined(__AVX512F__)
    F16 n = (F16)_mm512_roundscale_ps((__m512)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), r = v - n;
    /* For |r| <= 1/2 the polynomial of the least greatest relative error. */
    F16 p = all(1.327647069e-3f);
    p = madd(p, r, all(9.675541324e-3f));
    p = madd(p, r, all(5.550713278e-2f));
    p = madd(p, r, all(2.402211972e-1f));
    p = madd(p, r, all(6.931469671e-1f));
    p = madd(p, r, all(1.0f));
    return (F16)_mm512_scalef_ps((__m512)p, (__m512)n);
#else
    return exponential(v * 0.693147181f);
#endif
}
