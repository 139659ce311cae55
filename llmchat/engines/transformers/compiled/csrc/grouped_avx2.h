/* Integer products of codes and activations with AVX2, see grouped_dot.h.
 *
 * vpmaddubsw adds the products of a pair of codes in 16 bits. Of codes of few bits, several such
 * sums fit 16 bits as well, so that one instruction adds up 32 products. Codes of 8 bits and
 * numbers of a table do not: they become signed numbers, see products_avx2.h. */
#pragma once

/* half: of 8 rows each; narrow: the latest products, in 16 bits. */
typedef struct {
    __m256i half[2], narrow[2];
} sums_t;
typedef struct {
    f32x8 half[2];
} totals_t; /* gcc keeps an f32x16 in memory */
typedef __m256i fours_t;

/* How many products of pairs of codes with activations (127 at most) 16 bits hold; 0: none. */
INLINE int pairs_of(const int bits, const int has_table) {
    if (has_table || bits == 8) return 0;
    return bits == 6 ? 2 : bits == 5 ? 4 : 8;
}

INLINE sums_t sums_from(int32_t start) {
    __m256i all = _mm256_set1_epi32(start), none = _mm256_setzero_si256();
    return (sums_t){{all, all}, {none, none}};
}

INLINE totals_t load_totals(const float *p) { return (totals_t){{load8(p), load8(p + 8)}}; }
INLINE void store_totals(float *p, totals_t totals) {
    store8(p, totals.half[0]), store8(p + 8, totals.half[1]);
}
INLINE totals_t plus_totals(totals_t a, totals_t b) {
    return (totals_t){{a.half[0] + b.half[0], a.half[1] + b.half[1]}};
}

INLINE totals_t plus_minimum(totals_t totals, float term, const f32x16 *minimum) {
    const float *p = (const float *)minimum;
    f32x8 factor = (f32x8)_mm256_set1_ps(term);
    for (int i = 0; i < 2; i++)
        totals.half[i] = fused_madd8(factor, load8(p + 8 * i), totals.half[i]);
    return totals;
}

INLINE totals_t plus_products(totals_t totals, sums_t sums, float x, const f32x16 *scale) {
    const float *p = (const float *)scale;
    f32x8 factor = (f32x8)_mm256_set1_ps(x);
    for (int i = 0; i < 2; i++) {
        f32x8 products = (f32x8)_mm256_cvtepi32_ps(sums.half[i]) * factor;
        totals.half[i] = fused_madd8(products, load8(p + 8 * i), totals.half[i]);
    }
    return totals;
}

/* Computed or loaded here, and then in a register. */
INLINE __m256i in_register(__m256i v) {
    __asm__("" : "+x"(v));
    return v;
}

/* An operand of several products: gcc 12 would load it anew for each, which takes longer than the
 * product. Sums of few pairs need its register more. */
INLINE __m256i operand(__m256i v, const int pairs) { return pairs > 2 ? in_register(v) : v; }

/* stride: rows of the tile. */
INLINE fours_t load_fours(const act_t *q, int64_t stride, const int pairs) {
    return operand(broadcast_four(q), pairs);
}

INLINE codes_t load_vector(const u8x64 *codes, const int pairs) {
    const __m256i *p = (const __m256i *)codes;
    return (codes_t){
        {operand(_mm256_loadu_si256(p), pairs), operand(_mm256_loadu_si256(p + 1), pairs)}};
}

/* sums += the products of pairs. Two instructions in one statement, because gcc 12 would compute
 * all products first, for which there are no registers. */
INLINE void add_pairs(__m256i *sums, __m256i codes, __m256i x) {
    __m256i products;
    __asm__("vpmaddubsw %3, %2, %1\n\tvpaddw %1, %0, %0"
            : "+x"(*sums), "=&x"(products)
            : "x"(codes), "x"(x));
}

INLINE void add_fours(sums_t *sums, const codes_t *codes, fours_t x, const int pairs, const int v,
                      const int count) {
    const __m256i ones = _mm256_set1_epi16(1);
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        __m256i all = codes->half[i];
        if (!pairs) {
            __m256i number = _mm256_xor_si256(all, _mm256_set1_epi8(-128));
            __m256i products =
                _mm256_maddubs_epi16(_mm256_abs_epi8(number), _mm256_sign_epi8(x, number));
            sums->half[i] =
                in_register(_mm256_add_epi32(sums->half[i], _mm256_madd_epi16(products, ones)));
            continue;
        }
        if (v % pairs)
            add_pairs(&sums->narrow[i], all, x);
        else
            sums->narrow[i] = in_register(_mm256_maddubs_epi16(all, x));
        if ((v + 1) % pairs == 0 || v + 1 == count)
            sums->half[i] =
                _mm256_add_epi32(sums->half[i], _mm256_madd_epi16(sums->narrow[i], ones));
    }
}
