/* The product kernels with AVX-512 VNNI: vpdpbusd adds four products of bytes to each 32-bit lane.
 *
 * It takes unsigned weights: 128 is added to each, and a group's sum starts at `offset` (see
 * activations.h), which takes the additional products away again. */
#pragma once

typedef uint8_t packed_t;
#define PACKED_SIZE (CACHE_LINE * LANES) /* [CACHE_LINE / 4][16][4] */
#define PANEL_DEPTH 1024
#define GEMV_MAX_ROWS 1
#define TILE_ROWS 6

INLINE __m512i load_weights(const int8_t *p, __mmask64 mask) {
    return _mm512_xor_si512(_mm512_maskz_loadu_epi8(mask, p), _mm512_set1_epi8(-128));
}

INLINE __mmask64 first_bytes(int64_t count) {
    return count >= CACHE_LINE ? ~0ull : (1ull << (count & 63)) - 1;
}

INLINE __m512i add_pairs(__m512i a, __m512i b) {
    return _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
}
INLINE __m512i add_quads(__m512i a, __m512i b) {
    return _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
}
INLINE __m512i add_lanes(__m512i a, __m512i b) {
    return _mm512_add_epi32(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd));
}

/* Transpose 16 x 16 numbers of 32 bits. */
INLINE void transpose(__m512i d[LANES]) {
    __m512i t[LANES];
#pragma GCC unroll 8
    for (int i = 0; i < LANES; i += 2) {
        t[i] = _mm512_unpacklo_epi32(d[i], d[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(d[i], d[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < LANES; i += 4) {
        d[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        d[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        d[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        d[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(d[i], d[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(d[i], d[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(d[i + 8], d[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(d[i + 8], d[i + 12], 0xdd);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        d[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        d[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
        d[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
        d[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
    }
}

/* A run is so much of a row that the sums of its 16 groups fill a register. */
#define RUN (8 * CACHE_LINE)
/* Runs of a row read one after the other: memory is fastest when it is read sequentially. */
#define SEQUENTIAL_RUNS 16
#define PREFETCH_BYTES 6144 /* from what is read to what is prefetched */

/* The lane in which group_sums leaves the sum of a group. */
#define GROUP_LANE(group) ((group) / 8 * 8 + (group) % 2 * 4 + (group) / 2 % 4)

/* The dot product of each group among `count` weights of a row and their activations. Only the
 * first `in` weights exist. */
INLINE __m512i group_sums(const int8_t *w, const act_t *q, int64_t in, int64_t count) {
    __m512i d[8];
#pragma GCC unroll 8
    for (int k = 0; k < 8; k++) {
        int64_t column = k * CACHE_LINE;
        __mmask64 mask = first_bytes(in - column); /* computed later: 10 % slower (gcc 12) */
        d[k] = _mm512_setzero_si512();
        if (column >= count) continue;
        _mm_prefetch((const char *)w + column + PREFETCH_BYTES, _MM_HINT_T1);
        __m512i weights = load_weights(w + column, mask);
        d[k] = _mm512_dpbusd_epi32(d[k], weights, _mm512_loadu_si512(q + column));
    }
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) d[k] = add_pairs(d[2 * k], d[2 * k + 1]);
    return add_lanes(add_quads(d[0], d[1]), add_quads(d[2], d[3]));
}

/* 16 outputs for one row of activations, directly from the weights. */
static void gemv_block(const Activations *acts, int64_t row, const RowBlock *block, float *out) {
    const float *scale = acts->scale + row * acts->groups;
    const int32_t *offset = acts->offset + row * acts->groups;
    __m512 total = _mm512_setzero_ps();
    for (int64_t begin = 0; begin < acts->width; begin += SEQUENTIAL_RUNS * RUN) {
        const act_t *q = acts->q + row * acts->width + begin;
        int64_t count = MIN(SEQUENTIAL_RUNS * RUN, acts->width - begin), in = acts->in - begin;
        int64_t full = MIN(in, count) / RUN * RUN, at;
        __m512i sums[SEQUENTIAL_RUNS][LANES];
        for (int i = 0; i < LANES; i++) {
            const int8_t *w = block->rows[i] + begin;
            for (at = 0; at < full; at += RUN)
                sums[at / RUN][i] = group_sums(w + at, q + at, RUN, RUN);
            if (at < count) sums[at / RUN][i] = group_sums(w + at, q + at, in - at, count - at);
        }
        for (at = 0; at < count; at += RUN, scale += RUN / GROUP, offset += RUN / GROUP) {
            __m512i *d = sums[at / RUN];
            transpose(d);
#pragma GCC unroll 16
            for (int g = 0; g < RUN / GROUP; g++) {
                if (at + g * GROUP >= count) break;
                __m512i sum = _mm512_add_epi32(d[GROUP_LANE(g)], _mm512_set1_epi32(offset[g]));
                total = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), _mm512_set1_ps(scale[g]), total);
            }
        }
    }
    _mm512_storeu_ps(out, total);
}

/* Pack one cache line of columns of 16 rows from `column` on, of which `left` exist: four
 * neighbours of a row next to those of the next row. The panels of two blocks alternate. */
INLINE void pack_panel(const RowBlock *block, int64_t column, int64_t left, packed_t *out) {
    __mmask64 mask = first_bytes(left);
    __m512i d[LANES];
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++) d[i] = load_weights(block->rows[i] + column, mask);
    transpose(d);
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++) _mm512_storeu_si512(out + i * 2 * 64, d[i]);
}

/* sums += the four products of each lane. In assembly, because for the intrinsic gcc 12 copies
 * every accumulator twice, which halves the speed. */
INLINE void add_products(__m512i *sums, __m512i weights, __m512i x) {
#ifdef LLMCHAT_EMULATED /* tests/support/avx512 */
    *sums = _mm512_dpbusd_epi32(*sums, weights, x);
#else
    __asm__("vpdpbusd %2, %1, %0" : "+v"(*sums) : "v"(weights), "v"(x));
#endif
}

/* sums[rows][2]: of a group of each row of a tile, times 32 packed columns. */
INLINE void sum_group(const act_t *q, const packed_t *panel, const int rows,
                      __m512i sums[TILE_ROWS][2]) {
#pragma GCC unroll 4
    for (int k = 0; k < GROUP; k += 4) {
        __m512i left = _mm512_loadu_si512(panel + k * 32);
        __m512i right = _mm512_loadu_si512(panel + k * 32 + 64);
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) {
            int32_t four;
            memcpy(&four, q + k * TILE_ROWS + r * 4, 4);
            __m512i x = _mm512_set1_epi32(four);
            add_products(&sums[r][0], left, x);
            add_products(&sums[r][1], right, x);
        }
    }
}

/* out[rows][32] (+)= tile `index` of the activations times a packed panel of `lines` cache lines
 * from column `first` on. */
INLINE void gemm_tile(const Activations *acts, int64_t index, const int rows, int64_t first,
                      int64_t lines, const packed_t *panel, const Prefetch *next, float *out) {
    const int64_t groups_per_line = CACHE_LINE / GROUP;
    const act_t *q = acts->q + (index * acts->width + first) * TILE_ROWS;
    int64_t first_group = (index * acts->groups + first / GROUP) * TILE_ROWS;
    const float *scale = acts->scale + first_group;
    const int32_t *offset = acts->offset + first_group;
    __m512 total[TILE_ROWS][2];
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) {
        total[r][0] = first ? _mm512_loadu_ps(out + r * 32) : _mm512_setzero_ps();
        total[r][1] = first ? _mm512_loadu_ps(out + r * 32 + 16) : _mm512_setzero_ps();
    }
    for (int64_t group = 0; group < lines * groups_per_line; group++) {
        __m512i sums[TILE_ROWS][2];
        if (group % groups_per_line == 0) prefetch_rows(next, index, group / groups_per_line);
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) sums[r][0] = sums[r][1] = _mm512_set1_epi32(offset[r]);
        sum_group(q, panel, rows, sums);
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) {
            __m512 s = _mm512_set1_ps(scale[r]);
            total[r][0] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[r][0]), s, total[r][0]);
            total[r][1] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[r][1]), s, total[r][1]);
        }
        panel += GROUP * 32, q += GROUP * TILE_ROWS, scale += TILE_ROWS, offset += TILE_ROWS;
    }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) {
        _mm512_storeu_ps(out + r * 32, total[r][0]);
        _mm512_storeu_ps(out + r * 32 + 16, total[r][1]);
    }
}
