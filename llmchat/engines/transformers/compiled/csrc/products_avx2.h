/* The product kernels for AVX2.
 *
 * vpmaddubsw multiplies unsigned with signed bytes and adds pairs in 16 bits, which saturate. A
 * single row takes the magnitudes of the weights and gives their signs to the activations: a pair
 * is at most 2 * 128 * 127. Many rows take 16-bit numbers instead, because a sign would cost an
 * operation for each product: even and odd columns become 16-bit numbers by two shifts. */
#pragma once

typedef int8_t packed_t;
#define PACKED_SIZE (CACHE_LINE * LANES) /* [CACHE_LINE / 4][16][4] */
#define PANEL_DEPTH 512
#define GEMV_MAX_ROWS 2
#define TILE_ROWS 4

/* Transpose 8 x 8 numbers of 32 bits. */
INLINE void transpose(__m256i d[8]) {
    __m256i t[8];
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_epi32(d[i], d[i + 1]);
        t[i + 1] = _mm256_unpackhi_epi32(d[i], d[i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) {
        d[i] = _mm256_unpacklo_epi64(t[i], t[i + 2]);
        d[i + 1] = _mm256_unpackhi_epi64(t[i], t[i + 2]);
        d[i + 2] = _mm256_unpacklo_epi64(t[i + 1], t[i + 3]);
        d[i + 3] = _mm256_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        __m256i low = d[i], high = d[i + 4];
        d[i] = _mm256_permute2x128_si256(low, high, 0x20);
        d[i + 4] = _mm256_permute2x128_si256(low, high, 0x31);
    }
}

/* Four bytes in each lane, by one instruction: from memcpy, gcc 12 makes four. */
INLINE __m256i broadcast_four(const void *p) {
    typedef const int32_t __attribute__((may_alias, aligned(1))) four;
    return _mm256_set1_epi32(*(four *)p);
}

/* ---- a single row: the weights are used where they are */

#define RUN (8 * GROUP) /* so much of a row that the sums of its groups fill a register */
/* Runs of a row read one after the other: memory is fastest when it is read sequentially. */
#define SEQUENTIAL_RUNS 16
#define PREFETCH_BYTES 6144 /* from what is read to what is prefetched */

/* Parts of the sum of one group of products. */
INLINE __m256i group_parts(const int8_t *w, const act_t *q) {
    __m256i weights = _mm256_loadu_si256((const __m256i *)w);
    __m256i x = _mm256_sign_epi8(_mm256_loadu_si256((const __m256i *)q), weights);
    __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(weights), x);
    return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

/* The sums of the groups of a run, in order. */
INLINE __m256i run_sums(const int8_t *w, const act_t *q) {
    __m256i d[8];
#pragma GCC unroll 8
    for (int k = 0; k < 8; k++) {
        if (k % 2 == 0) _mm_prefetch((const char *)w + k * GROUP + PREFETCH_BYTES, _MM_HINT_T1);
        d[k] = group_parts(w + k * GROUP, q + k * GROUP);
    }
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) d[k] = _mm256_hadd_epi32(d[2 * k], d[2 * k + 1]);
    __m256i low = _mm256_hadd_epi32(d[0], d[1]), high = _mm256_hadd_epi32(d[2], d[3]);
    return _mm256_add_epi32(_mm256_permute2x128_si256(low, high, 0x20),
                            _mm256_permute2x128_si256(low, high, 0x31));
}

/* The same where only `count` weights exist and `width` activations. */
static __attribute__((noinline)) __m256i tail_sums(const int8_t *w, const act_t *q, int64_t count,
                                                   int64_t width) {
    int8_t weights[RUN] = {0};
    act_t x[RUN] = {0};
    memcpy(weights, w, MAX(0, MIN(count, RUN)));
    memcpy(x, q, MIN(width, RUN));
    return run_sums(weights, x);
}

/* 16 outputs for one row of activations, directly from the weights. */
static void gemv_block(const Activations *acts, int64_t row, const RowBlock *block, float *out) {
    const float *scale = acts->scale + row * acts->groups;
    f32x8 total[2] = {};
    for (int64_t begin = 0; begin < acts->width; begin += SEQUENTIAL_RUNS * RUN) {
        const act_t *q = acts->q + row * acts->width + begin;
        int64_t width = acts->width - begin, count = MIN(SEQUENTIAL_RUNS * RUN, width);
        int64_t in = acts->in - begin, full = MIN(in, count) / RUN * RUN, at;
        __m256i sums[SEQUENTIAL_RUNS][LANES];
        for (int i = 0; i < LANES; i++) {
            const int8_t *w = block->rows[i] + begin;
            for (at = 0; at < full; at += RUN) sums[at / RUN][i] = run_sums(w + at, q + at);
            if (at < count) sums[at / RUN][i] = tail_sums(w + at, q + at, in - at, width - at);
        }
        for (at = 0; at < count; at += RUN, scale += RUN / GROUP) {
            __m256i *d = sums[at / RUN];
            transpose(d), transpose(d + 8);
#pragma GCC unroll 8
            for (int g = 0; g < RUN / GROUP; g++) {
                if (at + g * GROUP >= count) break;
                f32x8 factor = (f32x8)_mm256_set1_ps(scale[g]);
                total[0] = fused_madd8((f32x8)_mm256_cvtepi32_ps(d[g]), factor, total[0]);
                total[1] = fused_madd8((f32x8)_mm256_cvtepi32_ps(d[8 + g]), factor, total[1]);
            }
        }
    }
    memcpy(out, total, sizeof total);
}

/* ---- many rows */

/* Pack one cache line of columns of 16 rows from `column` on, of which `left` exist: four
 * neighbours of a row next to those of the next row. The panels of two blocks alternate. */
INLINE void pack_panel(const RowBlock *block, int64_t column, int64_t left, packed_t *out) {
    int8_t lines[LANES][CACHE_LINE];
    const int8_t *rows[LANES];
    for (int i = 0; i < LANES; i++) {
        rows[i] = block->rows[i] + column;
        if (left >= CACHE_LINE) continue;
        memset(lines[i], 0, CACHE_LINE);
        rows[i] = memcpy(lines[i], rows[i], MAX(0, left));
    }
    for (int part = 0; part < 4; part++) {
        int first = part % 2 * 8, at = part / 2 * 32;
        __m256i d[8];
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++)
            d[i] = _mm256_loadu_si256((const __m256i *)(rows[first + i] + at));
        transpose(d);
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++)
            _mm256_storeu_si256((__m256i *)(out + (at / 4 + i) * 2 * 64 + first * 4), d[i]);
    }
}

/* The even and the odd bytes of words, as 16-bit numbers. */
INLINE __m256i even_bytes(__m256i v) { return _mm256_srai_epi16(_mm256_slli_epi16(v, 8), 8); }
INLINE __m256i odd_bytes(__m256i v) { return _mm256_srai_epi16(v, 8); }

/* The activations of a tile as 16-bit numbers: [count / 4][TILE_ROWS][even or odd columns][2]. */
static void widen_tile(const act_t *q, int64_t count, int64_t width, int16_t *out) {
    for (int64_t i = 0; i < count * TILE_ROWS; i += 32, out += 32) {
        __builtin_prefetch(q + i + width * TILE_ROWS, 0, 2); /* of the next tile */
        __m256i x = _mm256_loadu_si256((const __m256i *)(q + i));
        __m256i even = even_bytes(x), odd = odd_bytes(x);
        __m256i low = _mm256_unpacklo_epi32(even, odd), high = _mm256_unpackhi_epi32(even, odd);
        _mm256_storeu_si256((__m256i *)out, _mm256_permute2x128_si256(low, high, 0x20));
        _mm256_storeu_si256((__m256i *)(out + 16), _mm256_permute2x128_si256(low, high, 0x31));
    }
}

/* Two instructions in one statement, because gcc 12 would compute all products first, for which
 * there are no registers. */
INLINE void add_products(__m256i *sums, __m256i weights, __m256i x) {
    __m256i products;
    __asm__("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0"
            : "+x"(*sums), "=&x"(products)
            : "x"(weights), "x"(x));
}

/* sums[rows][2]: of a group of each row of a tile, times 16 packed columns. */
INLINE void sum_group(const int16_t *x, const packed_t *panel, const int rows,
                      __m256i sums[TILE_ROWS][2]) {
    for (int r = 0; r < rows; r++) sums[r][0] = sums[r][1] = _mm256_setzero_si256();
    for (int k = 0; k < GROUP / 4; k++, x += 4 * TILE_ROWS) {
        __m256i left = _mm256_loadu_si256((const __m256i *)(panel + k * 2 * 64));
        __m256i right = _mm256_loadu_si256((const __m256i *)(panel + k * 2 * 64 + 32));
        __m256i left_part = even_bytes(left), right_part = even_bytes(right);
#pragma GCC unroll 2
        for (int odd = 0; odd < 2; odd++) {
            if (odd) left_part = odd_bytes(left), right_part = odd_bytes(right);
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++) {
                __m256i pair = broadcast_four(x + 4 * r + 2 * odd);
                add_products(&sums[r][0], left_part, pair);
                add_products(&sums[r][1], right_part, pair);
            }
        }
    }
}

/* out[rows][32] (+)= tile `index` of the activations times a packed panel of `lines` cache lines
 * from column `first` on. */
INLINE void gemm_tile(const Activations *acts, int64_t index, const int rows, int64_t first,
                      int64_t lines, const packed_t *panel, const Prefetch *next, float *out) {
    const int64_t groups_per_line = CACHE_LINE / GROUP;
    const float *scale = acts->scale + (index * acts->groups + first / GROUP) * TILE_ROWS;
    int16_t wide[PANEL_DEPTH * TILE_ROWS], *x = wide;
    widen_tile(acts->q + (index * acts->width + first) * TILE_ROWS, lines * CACHE_LINE, acts->width,
               wide);
    if (!first) memset(out, 0, rows * 32 * sizeof *out);
    for (int64_t group = 0; group < lines * groups_per_line; group++) {
        if (group % groups_per_line == 0) prefetch_rows(next, index, group / groups_per_line);
        for (int half = 0; half < 2; half++) {
            __m256i sums[TILE_ROWS][2];
            sum_group(x, panel + half * 64, rows, sums);
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++) {
                float *target = out + r * 32 + half * LANES;
                f32x8 factor = (f32x8)_mm256_set1_ps(scale[r]);
#pragma GCC unroll 2
                for (int i = 0; i < 2; i++)
                    store8(target + 8 * i, fused_madd8((f32x8)_mm256_cvtepi32_ps(sums[r][i]),
                                                       factor, load8(target + 8 * i)));
            }
        }
        panel += GROUP * 32, x += GROUP * TILE_ROWS, scale += TILE_ROWS;
    }
}
