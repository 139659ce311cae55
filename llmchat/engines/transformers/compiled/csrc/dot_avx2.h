/* Integer dot products of one group with AVX2: pairs of 16-bit products, summed in 32 bits. */
#pragma once

/* The dot product of GROUP weights and activations. */
INLINE int32_t dot_group(const int8_t *w, const act_t *q) {
    __m256i sums = _mm256_setzero_si256();
    for (int k = 0; k < GROUP; k += 16) {
        __m256i weights = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(w + k)));
        __m256i x = _mm256_loadu_si256((const __m256i *)(q + k));
        sums = _mm256_add_epi32(sums, _mm256_madd_epi16(weights, x));
    }
    __m128i half = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(half, _mm_shuffle_epi32(half, 0xb1)));
}

/* sums[rows]: of a group of each row of a tile, times 16 packed columns. */
INLINE void sum_group(const act_t *q, const packed_t *panel, const int rows, GroupSums *sums) {
    __m256i low[TILE_ROWS], high[TILE_ROWS];
    for (int r = 0; r < rows; r++) low[r] = high[r] = _mm256_setzero_si256();
    for (int k = 0; k < GROUP / 2; k++) {
        __m256i left = _mm256_loadu_si256((const __m256i *)(panel + k * 64));
        __m256i right = _mm256_loadu_si256((const __m256i *)(panel + k * 64 + 16));
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            int32_t pair;
            memcpy(&pair, q + (k * TILE_ROWS + r) * 2, 4);
            __m256i x = _mm256_set1_epi32(pair);
            low[r] = _mm256_add_epi32(low[r], _mm256_madd_epi16(left, x));
            high[r] = _mm256_add_epi32(high[r], _mm256_madd_epi16(right, x));
        }
    }
    for (int r = 0; r < rows; r++) {
        memcpy(sums[r].lane, &low[r], 32);
        memcpy(sums[r].lane + 8, &high[r], 32);
    }
}
