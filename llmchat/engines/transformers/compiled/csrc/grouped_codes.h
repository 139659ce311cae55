/* The codes of grouped weights: from vectors of packed bits to a byte for each code, see
 * quantised/packed.py. */
#pragma once
#include "grouped_scales.h"

typedef uint8_t u8x64 __attribute__((vector_size(64)));
typedef uint16_t u16x32 __attribute__((vector_size(64)));

#define VECTORS (CODE_CHUNK / 4) /* of a chunk: each has four columns of 16 rows */

INLINE u8x64 load_codes(const uint8_t *p) {
    u8x64 v;
    memcpy(&v, p, sizeof v);
    return v;
}

#ifdef USE_AVX2
#include "unpacking_avx2.h"

/* The numbers of one chunk, as unpack_numbers. */
INLINE void unpack_to(const Matrix *matrix, const uint8_t *p, const int bits, int has_table,
                      u8x64 *out, int64_t stride) {
#pragma GCC unroll 8
    for (int v = 0; v < VECTORS; v++)
        store_vector(out + v * stride, unpack_vector(matrix, p, bits, has_table, v));
}
#else
/* The bits `mask` of each byte, moved `by` places to the left, or to the right where it is
 * negative. The shift crosses bytes: mask keeps only bits of the byte itself. */
INLINE u8x64 moved_bits(u8x64 v, const int by, const int mask) {
    u16x32 words = by >= 0 ? (u16x32)v << by : (u16x32)v >> -by;
    return (u8x64)words & (uint8_t)mask;
}

/* Parts of `width` bits, 8 / width of them in a byte, to bits `at` and following of each code. */
INLINE void add_part(const uint8_t *p, const int width, const int at, u8x64 codes[VECTORS]) {
    const int per_byte = 8 / width, mask = ((1 << width) - 1) << at;
#pragma GCC unroll 8
    for (int k = 0; k < width; k++) {
        u8x64 packed = load_codes(p + k * 64);
#pragma GCC unroll 8
        for (int i = 0; i < per_byte; i++) {
            u8x64 part = moved_bits(packed, at - i * width, mask);
            codes[k * per_byte + i] = at ? codes[k * per_byte + i] | part : part;
        }
    }
}

/* The codes of one chunk. */
INLINE void unpack_chunk(const uint8_t *p, const int bits, u8x64 codes[VECTORS]) {
    const int low = bits == 8 ? 8 : bits >= 4 ? 4 : 2;
    if (low == 8) {
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; v++) codes[v] = load_codes(p + v * 64);
        return;
    }
    add_part(p, low, 0, codes);
    if (bits > low) add_part(p + low * 64, bits - low, low, codes);
}

/* The number of a table that each code stands for, plus 128. */
INLINE u8x64 look_up(u8x64 codes, const int8_t *table) {
#ifdef USE_VNNI
    __m512i numbers = _mm512_broadcast_i32x4(_mm_loadu_si128((const void *)table));
    return (u8x64)_mm512_shuffle_epi8(numbers, (__m512i)codes) ^ 128;
#elif defined(USE_NEON)
    int8x16_t numbers = vld1q_s8(table);
    for (int i = 0; i < 64; i += 16)
        vst1q_s8((int8_t *)&codes + i, vqtbl1q_s8(numbers, vld1q_u8((uint8_t *)&codes + i)));
    return codes ^ 128;
#else
    for (int i = 0; i < 64; i++) codes[i] = (uint8_t)(table[codes[i] & 15] + 128);
    return codes;
#endif
}

INLINE void unpack_to(const Matrix *matrix, const uint8_t *p, const int bits, int has_table,
                      u8x64 *out, int64_t stride) {
    u8x64 codes[VECTORS];
    unpack_chunk(p, bits, codes);
    for (int v = 0; v < VECTORS; v++)
        out[v * stride] = has_table ? look_up(codes[v], matrix->weight) : codes[v];
}
#endif

#define UNPACK_CASE(bits)                                                                          \
    case bits: unpack_to(matrix, p, bits, 0, out, stride); break

/* The numbers of one chunk of a matrix, plus its zero, each `stride` vectors behind the one before.
 */
static void unpack_numbers(const Matrix *matrix, const uint8_t *p, u8x64 *out, int64_t stride) {
    switch (matrix->grouping->bits) {
        UNPACK_CASE(2);
        UNPACK_CASE(3);
    case 4:
        unpack_to(matrix, p, 4, matrix->grouping->has_table, out, stride);
        break;
        UNPACK_CASE(5);
        UNPACK_CASE(6);
    default: unpack_to(matrix, p, 8, 0, out, stride);
    }
}
