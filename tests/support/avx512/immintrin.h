/* The AVX-512 intrinsics of the compiled step in plain C, after the operations in Intel's
 * intrinsics guide, so that its AVX-512 paths run on a processor without them. Everything up to
 * AVX2 is the compiler's own. Vectors are those of gcc and clang. */
#pragma once
/* vectors.h has read these. The compiler's headers must not take them for its own. */
#undef __AVX512F__
#undef __AVX512BW__
#undef __AVX512VL__
#undef __AVX512VNNI__
#undef __AVX512BF16__
#include_next <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#define OWN static inline __attribute__((unused))

typedef union {
    __m512i i;
    __m512 f;
    int8_t i8[64];
    uint8_t u8[64];
    int16_t i16[32];
    uint16_t u16[32];
    int32_t i32[16];
    uint32_t u32[16];
    uint64_t u64[8];
    float f32[16];
    uint32_t quarters[4][4];
} own_512;

#define EACH(lanes, result)                                                                        \
    own_512 to;                                                                                    \
    for (int n = 0; n < (lanes); n++) result;                                                      \
    return to

/* Loads, stores, constants */
OWN __m512i own_loadu_si512(const void *p) {
    __m512i to;
    memcpy(&to, p, 64);
    return to;
}
OWN __m512 own_loadu_ps(const void *p) { return (__m512)own_loadu_si512(p); }
OWN void own_storeu_si512(void *p, __m512i x) { memcpy(p, &x, 64); }
OWN void own_storeu_ps(void *p, __m512 x) { memcpy(p, &x, 64); }
OWN __m512i own_maskz_loadu_epi8(uint64_t mask, const void *p) {
    EACH(64, to.i8[n] = mask >> n & 1 ? ((const int8_t *)p)[n] : 0).i;
}
OWN __m512i own_set1_epi8(int8_t x) { EACH(64, to.i8[n] = x).i; }
OWN __m512i own_set1_epi32(int32_t x) { EACH(16, to.i32[n] = x).i; }
OWN __m512 own_set1_ps(float x) { EACH(16, to.f32[n] = x).f; }
OWN __m512i own_setzero_si512(void) { return own_set1_epi32(0); }
OWN __m512 own_setzero_ps(void) { return own_set1_ps(0); }
OWN __m512i own_broadcast_i32x4(__m128i x) {
    own_512 to;
    for (int n = 0; n < 4; n++) memcpy(to.quarters[n], &x, 16);
    return to.i;
}

/* Arithmetic, lane by lane */
OWN __m512i own_add_epi32(__m512i x, __m512i y) {
    own_512 a = {x}, b = {y};
    EACH(16, to.u32[n] = a.u32[n] + b.u32[n]).i;
}
OWN __m512i own_xor_si512(__m512i x, __m512i y) { return x ^ y; }
OWN __m512i own_slli_epi32(__m512i x, int by) {
    own_512 a = {x};
    EACH(16, to.u32[n] = a.u32[n] << by).i;
}
OWN __m512 own_max_ps(__m512 x, __m512 y) {
    own_512 a = {.f = x}, b = {.f = y};
    EACH(16, to.f32[n] = a.f32[n] > b.f32[n] ? a.f32[n] : b.f32[n]).f;
}
OWN __m512 own_fmadd_ps(__m512 x, __m512 y, __m512 z) {
    own_512 a = {.f = x}, b = {.f = y}, c = {.f = z};
    EACH(16, to.f32[n] = fmaf(a.f32[n], b.f32[n], c.f32[n])).f;
}
/* To the nearest integer: the only rounding that the step asks for. */
OWN __m512 own_roundscale_ps(__m512 x, int how) {
    own_512 a = {.f = x};
    (void)how;
    EACH(16, to.f32[n] = rintf(a.f32[n])).f;
}
OWN __m512 own_scalef_ps(__m512 x, __m512 y) {
    own_512 a = {.f = x}, b = {.f = y};
    EACH(16, to.f32[n] = a.f32[n] * exp2f(floorf(b.f32[n]))).f;
}

/* Conversions */
OWN __m512 own_cvtepi32_ps(__m512i x) {
    own_512 a = {x};
    EACH(16, to.f32[n] = (float)a.i32[n]).f;
}
OWN __m128i own_cvtepi32_epi8(__m512i x) {
    own_512 a = {x};
    uint8_t to[16];
    for (int n = 0; n < 16; n++) to[n] = (uint8_t)a.u32[n];
    return _mm_loadu_si128((const __m128i *)to);
}
OWN __m512i own_cvtepu8_epi32(__m128i x) {
    uint8_t a[16];
    memcpy(a, &x, 16);
    EACH(16, to.i32[n] = a[n]).i;
}
OWN __m512i own_cvtepi8_epi32(__m128i x) {
    int8_t a[16];
    memcpy(a, &x, 16);
    EACH(16, to.i32[n] = a[n]).i;
}
OWN __m512i own_cvtepu16_epi32(__m256i x) {
    uint16_t a[16];
    memcpy(a, &x, 32);
    EACH(16, to.i32[n] = a[n]).i;
}
OWN __m512 own_cvtph_ps(__m256i x) {
    own_512 to;
    __m128i half[2];
    memcpy(half, &x, 32);
    for (int n = 0; n < 2; n++) {
        __m256 eight = _mm256_cvtph_ps(half[n]);
        memcpy(to.f32 + n * 8, &eight, 32);
    }
    return to.f;
}

/* Orders of lanes: within quarters of 128 bits, and of quarters */
OWN __m512i own_unpack_epi32(__m512i x, __m512i y, int from) {
    own_512 a = {x}, b = {y};
    EACH(16, to.quarters[n / 4][n % 4] = (n % 2 ? b : a).quarters[n / 4][from + n % 4 / 2]).i;
}
OWN __m512i own_unpacklo_epi32(__m512i x, __m512i y) { return own_unpack_epi32(x, y, 0); }
OWN __m512i own_unpackhi_epi32(__m512i x, __m512i y) { return own_unpack_epi32(x, y, 2); }
OWN __m512i own_unpacklo_epi64(__m512i x, __m512i y) {
    own_512 a = {x}, b = {y};
    EACH(8, to.u64[n] = (n % 2 ? b : a).u64[n / 2 * 2]).i;
}
OWN __m512i own_unpackhi_epi64(__m512i x, __m512i y) {
    own_512 a = {x}, b = {y};
    EACH(8, to.u64[n] = (n % 2 ? b : a).u64[n / 2 * 2 + 1]).i;
}
OWN __m512i own_shuffle_i32x4(__m512i x, __m512i y, int order) {
    own_512 a = {x}, b = {y}, to;
    for (int n = 0; n < 4; n++)
        memcpy(to.quarters[n], (n < 2 ? a : b).quarters[order >> 2 * n & 3], 16);
    return to.i;
}
OWN __m512i own_shuffle_epi8(__m512i x, __m512i y) {
    own_512 a = {x}, b = {y};
    EACH(64, to.u8[n] = b.u8[n] & 128 ? 0 : a.u8[n / 16 * 16 + (b.u8[n] & 15)]).i;
}

/* Sums of all lanes, halved and halved again */
#define HALVE(lane, type, both)                                                                    \
    for (int wide = 8; wide; wide /= 2)                                                            \
        for (int n = 0; n < wide; n++) {                                                           \
            type left = lane[n], right = lane[n + wide];                                           \
            lane[n] = both;                                                                        \
        }
OWN int32_t own_reduce_add_epi32(__m512i x) {
    own_512 a = {x};
    HALVE(a.u32, uint32_t, left + right)
    return a.i32[0];
}
OWN float own_reduce_add_ps(__m512 x) {
    own_512 a = {.f = x};
    HALVE(a.f32, float, left + right)
    return a.f32[0];
}
OWN float own_reduce_max_ps(__m512 x) {
    own_512 a = {.f = x};
    HALVE(a.f32, float, left > right ? left : right)
    return a.f32[0];
}

/* Products of bytes and of bfloat16 */
OWN __m512i own_dpbusd_epi32(__m512i sums, __m512i unsigned_bytes, __m512i signed_bytes) {
    own_512 to = {sums}, a = {unsigned_bytes}, b = {signed_bytes};
    for (int n = 0; n < 64; n++) to.u32[n / 4] += (uint32_t)(a.u8[n] * b.i8[n]);
    return to.i;
}
typedef __m512i own_512bh;
typedef __m256i own_256bh;
OWN float own_bf16_to_float(uint16_t half) {
    own_512 a;
    a.u32[0] = (uint32_t)half << 16;
    return a.f32[0];
}
OWN own_256bh own_cvtneps_pbh(__m512 x) {
    own_512 a = {.f = x};
    uint16_t to[16];
    for (int n = 0; n < 16; n++)
        to[n] = (uint16_t)((a.u32[n] + 0x7fff + (a.u32[n] >> 16 & 1)) >> 16);
    return _mm256_loadu_si256((const __m256i *)to);
}
/* The odd number of each pair first, each product added without rounding in between. */
OWN __m512 own_dpbf16_ps(__m512 sums, own_512bh x, own_512bh y) {
    own_512 to = {.f = sums}, a = {x}, b = {y};
    for (int n = 0; n < 16; n++)
        for (int odd = 1; odd >= 0; odd--)
            to.f32[n] = fmaf(own_bf16_to_float(a.u16[2 * n + odd]),
                             own_bf16_to_float(b.u16[2 * n + odd]), to.f32[n]);
    return to.f;
}
#undef EACH
#undef HALVE
#undef OWN

#define _mm512_add_epi32 own_add_epi32
#define _mm512_broadcast_i32x4 own_broadcast_i32x4
#define _mm512_cvtepi32_epi8 own_cvtepi32_epi8
#define _mm512_cvtepi32_ps own_cvtepi32_ps
#define _mm512_cvtepi8_epi32 own_cvtepi8_epi32
#define _mm512_cvtepu16_epi32 own_cvtepu16_epi32
#define _mm512_cvtepu8_epi32 own_cvtepu8_epi32
#define _mm512_cvtneps_pbh own_cvtneps_pbh
#define _mm512_cvtph_ps own_cvtph_ps
#define _mm512_dpbf16_ps own_dpbf16_ps
#define _mm512_dpbusd_epi32 own_dpbusd_epi32
#define _mm512_fmadd_ps own_fmadd_ps
#define _mm512_loadu_ps own_loadu_ps
#define _mm512_loadu_si512 own_loadu_si512
#define _mm512_maskz_loadu_epi8 own_maskz_loadu_epi8
#define _mm512_max_ps own_max_ps
#define _mm512_reduce_add_epi32 own_reduce_add_epi32
#define _mm512_reduce_add_ps own_reduce_add_ps
#define _mm512_reduce_max_ps own_reduce_max_ps
#define _mm512_roundscale_ps own_roundscale_ps
#define _mm512_scalef_ps own_scalef_ps
#define _mm512_set1_epi32 own_set1_epi32
#define _mm512_set1_epi8 own_set1_epi8
#define _mm512_set1_ps own_set1_ps
#define _mm512_setzero_ps own_setzero_ps
#define _mm512_setzero_si512 own_setzero_si512
#define _mm512_shuffle_epi8 own_shuffle_epi8
#define _mm512_shuffle_i32x4 own_shuffle_i32x4
#define _mm512_slli_epi32 own_slli_epi32
#define _mm512_storeu_ps own_storeu_ps
#define _mm512_storeu_si512 own_storeu_si512
#define _mm512_unpackhi_epi32 own_unpackhi_epi32
#define _mm512_unpackhi_epi64 own_unpackhi_epi64
#define _mm512_unpacklo_epi32 own_unpacklo_epi32
#define _mm512_unpacklo_epi64 own_unpacklo_epi64
#define _mm512_xor_si512 own_xor_si512
#define __m512bh own_512bh
#define __m256bh own_256bh
