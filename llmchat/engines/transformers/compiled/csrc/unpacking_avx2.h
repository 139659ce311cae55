/* Codes of grouped weights with AVX2, 32 bytes at a time: see halves.h. */
#pragma once

/* A vector of codes: 4 columns of 8 rows each. */
typedef struct {
    __m256i half[2];
} codes_t;
typedef uint16_t words16 __attribute__((vector_size(32)));

/* Parts of 32 packed bytes, moved `by` places to the left and masked. */
INLINE __m256i moved_half(const uint8_t *p, const int by, const int mask) {
    words16 words = (words16)_mm256_loadu_si256((const __m256i *)p);
    words = by >= 0 ? words << by : words >> -by;
    return _mm256_and_si256((__m256i)words, _mm256_set1_epi8((char)mask));
}

/* Bits `at` and following of the codes of vector `v`, packed with `width` bits each. */
INLINE __m256i half_part(const uint8_t *p, const int width, const int at, int v) {
    const int per_byte = 8 / width, mask = ((1 << width) - 1) << at;
    return moved_half(p + v / per_byte * 64, at - v % per_byte * width, mask);
}

/* Vector `v` of a chunk. Unpacked where it is used, its codes stay in registers. */
INLINE codes_t unpack_vector(const Matrix *matrix, const uint8_t *p, const int bits,
                             const int has_table, int v) {
    const int low = bits == 8 ? 8 : bits >= 4 ? 4 : 2;
    codes_t codes;
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        const uint8_t *half = p + 32 * i;
        if (low == 8) {
            codes.half[i] = _mm256_loadu_si256((const __m256i *)(half + v * 64));
            continue;
        }
        codes.half[i] = half_part(half, low, 0, v);
        if (bits > low)
            codes.half[i] =
                _mm256_or_si256(codes.half[i], half_part(half + low * 64, bits - low, low, v));
        if (has_table) {
            __m256i numbers =
                _mm256_broadcastsi128_si256(_mm_loadu_si128((const void *)matrix->weight));
            codes.half[i] = _mm256_xor_si256(_mm256_shuffle_epi8(numbers, codes.half[i]),
                                             _mm256_set1_epi8(-128));
        }
    }
    return codes;
}

INLINE void store_vector(u8x64 *out, codes_t codes) {
    _mm256_storeu_si256((__m256i *)out, codes.half[0]);
    _mm256_storeu_si256((__m256i *)out + 1, codes.half[1]);
}
