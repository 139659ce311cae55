/* Products of quantised activations with int8 weights.
 *
 * Activations are quantised in groups of GROUP along their row: x = q * scale, |q| <= 127. The sum over a group is exact in whole numbers; the
 * sums of the groups are added in fp32, in order. So every way of computing a product here gives the same bits, whatever the number of rows. */
#pragma once
#include "vectors.h"

#define GROUP 32 /* 64 costs twice as much perplexity, 16 gains nothing (docs/log.md) */
#define WIDE 64 /* weights of a row that are taken at once, a line of the cache */
#define DEPTH 1024 /* weights of a row that are packed at once: a panel of 2 x 16 rows stays in the first-level cache */

#ifdef USE_VNNI
typedef int8_t Act; /* vpdpbusd takes signed activations and unsigned weights */
#else
typedef int16_t Act;
#endif

typedef Act Act16 __attribute__((vector_size(LANES * sizeof(Act))));
#define UNIT (4 / (int64_t)sizeof(Act)) /* activations that are multiplied in one lane at once */

/* Rows of activations. width: padded to WIDE with zeros. Rows lie in tiles of `height`: q [tiles][width / UNIT][height][UNIT], and scale and
 * offset [tiles][groups][height], so that a product reads them one after the other. offset: what the product of a group starts from. */
typedef struct {
    int64_t rows, height, in, width, groups;
    Act *q;
    float *scale;
    int32_t *offset;
} Acts;

/* Groups [begin, end) of x: [in] → row `row`. rest: [width], takes what rounding took away, unless NULL. */
static void quantise(const Acts *acts, int64_t row, const float *x, int64_t begin, int64_t end, float *rest) {
    int64_t tile = row / acts->height, lane_of_row = row % acts->height;
    for (int64_t group = begin; group < end; group++) {
        int64_t first = group * GROUP, count = MAX(0, acts->in - first);
        float tail[GROUP] = {0};
        const float *part = x + first;
        if (count < GROUP) part = memcpy(tail, part, count * sizeof *tail);
        F16 peaks = {};
        for (int i = 0; i < GROUP; i += LANES) peaks = larger(magnitude(load(part + i)), peaks);
        float peak = largest(peaks), inverse = peak > 0 ? 127.0f / peak : 0.0f;
        Act q[GROUP];
        I16 total = {};
        for (int i = 0; i < GROUP; i += LANES) {
            I16 whole = nearest(load(part + i) * inverse);
            Act16 narrow = __builtin_convertvector(whole, Act16);
            memcpy(q + i, &narrow, sizeof narrow);
            total += whole;
            if (rest) store(rest + first + i, load(part + i) - __builtin_convertvector(whole, F16) * (peak / 127.0f));
        }
        Act *to = acts->q + tile * acts->height * acts->width + first * acts->height + lane_of_row * UNIT;
        for (int64_t i = 0; i < GROUP; i += UNIT) memcpy(to + i * acts->height, q + i, 4);
        int64_t at = (tile * acts->groups + group) * acts->height + lane_of_row;
        acts->scale[at] = peak / 127.0f;
        acts->offset[at] = (int32_t)(-128u * (uint32_t)total_of(total));
    }
}

/* Make every product of these groups of a row NaN. */
static void spoil(const Acts *acts, int64_t row, int64_t begin, int64_t end) {
    int64_t tile = row / acts->height, lane_of_row = row % acts->height;
    for (int64_t group = begin; group < end; group++) acts->scale[(tile * acts->groups + group) * acts->height + lane_of_row] = __builtin_nanf("");
}

/* 16 rows of weights, and the 16 that are read next (only a hint). */
typedef struct {
    const int8_t *rows[LANES], *next;
} Block;

/* What is to be in the cache for the next panel. Packing and each tile ask for a share of its rows: asked for all at once, they would come no
 * faster than memory gives them, and memory would rest for the remaining time. */
typedef struct {
    const int8_t *left, *right;
    int64_t stride, share;
} Ahead;

#define FETCH_ROWS 64 /* above, products take so much longer than memory that it does not matter */

INLINE void fetch(const Ahead *ahead, int64_t part, int64_t wide) {
    for (int64_t i = part * ahead->share; i < MIN((part + 1) * ahead->share, 2 * LANES); i++)
        __builtin_prefetch((i < LANES ? ahead->left + i * ahead->stride : ahead->right + (i - LANES) * ahead->stride) + wide * WIDE, 0, 2);
}

#ifdef USE_VNNI

typedef uint8_t Packed;
#define PACKED (WIDE * LANES) /* elements of 16 rows, packed: [WIDE / 4][16][4] */
#define DIRECT_ROWS 1
#define TILE 6

INLINE __m512i weights_of(const int8_t *p, __mmask64 mask) { return _mm512_xor_si512(_mm512_maskz_loadu_epi8(mask, p), _mm512_set1_epi8(-128)); }

INLINE __m512i add_pairs(__m512i a, __m512i b) { return _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b)); }
INLINE __m512i add_quads(__m512i a, __m512i b) { return _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b)); }
INLINE __m512i add_lanes(__m512i a, __m512i b) {
    return _mm512_add_epi32(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd));
}

/* d[i][j] -> d[j][i], 16 x 16 of 32 bits. */
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

#define RUN (8 * WIDE) /* of a row, that are summed up at once: the sums of their 16 groups fill a register */
#define RUNS 16        /* of a row, one after the other: memory gives most when it is read in the order in which it lies */
#define AHEAD 6144     /* bytes from what is read to what is asked for */

/* Where group_sums leaves the sum of a group. */
#define PLACE(group) ((group) / 8 * 8 + (group) % 2 * 4 + (group) / 2 % 4)

/* Sums of the products of `count` weights of a row with activations, for each group. `in` of them are there, of the last WIDE perhaps not all. */
INLINE __m512i group_sums(const int8_t *w, const Act *q, int64_t in, int64_t count) {
    __m512i d[8];
#pragma GCC unroll 8
    for (int k = 0; k < 8; k++) {
        int64_t left = in - k * WIDE;
        __mmask64 mask = left >= WIDE ? ~0ull : (1ull << (left & 63)) - 1;
        d[k] = _mm512_setzero_si512();
        if (k * WIDE >= count) continue;
        _mm_prefetch((const char *)w + k * WIDE + AHEAD, _MM_HINT_T0);
        d[k] = _mm512_dpbusd_epi32(d[k], weights_of(w + k * WIDE, mask), _mm512_loadu_si512(q + k * WIDE));
    }
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) d[k] = add_pairs(d[2 * k], d[2 * k + 1]);
    return add_lanes(add_quads(d[0], d[1]), add_quads(d[2], d[3]));
}

/* 16 outputs for one row of activations, straight from the weights. */
static void direct(const Acts *acts, int64_t row, const Block *block, float *out) {
    const float *scale = acts->scale + row * acts->groups;
    const int32_t *offset = acts->offset + row * acts->groups;
    __m512 total = _mm512_setzero_ps();
    for (int64_t begin = 0; begin < acts->width; begin += RUNS * RUN) {
        const Act *q = acts->q + row * acts->width + begin;
        int64_t count = MIN(RUNS * RUN, acts->width - begin), in = acts->in - begin, whole = MIN(in, count) / RUN * RUN, at;
        __m512i sums[RUNS][LANES];
        for (int i = 0; i < LANES; i++) {
            const int8_t *w = block->rows[i] + begin;
            for (at = 0; at < whole; at += RUN) sums[at / RUN][i] = group_sums(w + at, q + at, RUN, RUN);
            if (at < count) sums[at / RUN][i] = group_sums(w + at, q + at, in - at, count - at);
        }
        for (at = 0; at < count; at += RUN, scale += RUN / GROUP, offset += RUN / GROUP) {
            __m512i *d = sums[at / RUN];
            transpose(d);
#pragma GCC unroll 16
            for (int g = 0; g < RUN / GROUP; g++) {
                if (at + g * GROUP >= count) break;
                __m512i sum = _mm512_add_epi32(d[PLACE(g)], _mm512_set1_epi32(offset[g]));
                total = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), _mm512_set1_ps(scale[g]), total);
            }
        }
    }
    _mm512_storeu_ps(out, total);
}

/* WIDE columns of 16 rows of weights, each four neighbours of a row beside those of the next row; the panels of two blocks alternate. */
INLINE void pack(const Block *block, int64_t at, int64_t left, Packed *out) {
    __mmask64 mask = left >= WIDE ? ~0ull : (1ull << left) - 1;
    __m512i d[LANES];
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++) d[i] = weights_of(block->rows[i] + at, mask);
    transpose(d);
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++) _mm512_storeu_si512(out + i * 2 * 64, d[i]);
}

/* sums += the four products of each lane. Its intrinsic makes gcc copy every accumulator twice, which halves the speed. */
INLINE void add_products(__m512i *sums, __m512i weights, __m512i x) { __asm__("vpdpbusd %2, %1, %0" : "+v"(*sums) : "v"(weights), "v"(x)); }

/* out[rows][32] (+)= tile `index` of the activations times a packed panel, `wides` times WIDE columns from column `first` on. */
INLINE void tile(const Acts *acts, int64_t index, const int rows, int64_t first, int64_t wides, const Packed *panel, const Ahead *ahead, float *out) {
    const Act *q = acts->q + (index * acts->width + first) * TILE;
    const float *scale = acts->scale + (index * acts->groups + first / GROUP) * TILE;
    const int32_t *offset = acts->offset + (index * acts->groups + first / GROUP) * TILE;
    __m512 total[TILE][2];
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) {
        total[r][0] = first ? _mm512_loadu_ps(out + r * 32) : _mm512_setzero_ps();
        total[r][1] = first ? _mm512_loadu_ps(out + r * 32 + 16) : _mm512_setzero_ps();
    }
    for (int64_t group = 0; group < wides * (WIDE / GROUP); group++) {
        __m512i sums[TILE][2];
        if (group % (WIDE / GROUP) == 0) fetch(ahead, index, group / (WIDE / GROUP));
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) sums[r][0] = sums[r][1] = _mm512_set1_epi32(offset[r]);
#pragma GCC unroll 4
        for (int k = 0; k < GROUP; k += 4) {
            __m512i left = _mm512_loadu_si512(panel + k * 32), right = _mm512_loadu_si512(panel + k * 32 + 64);
#pragma GCC unroll 6
            for (int r = 0; r < rows; r++) {
                int32_t four;
                memcpy(&four, q + k * TILE + r * 4, 4);
                __m512i x = _mm512_set1_epi32(four);
                add_products(&sums[r][0], left, x);
                add_products(&sums[r][1], right, x);
            }
        }
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) {
            __m512 s = _mm512_set1_ps(scale[r]);
            total[r][0] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[r][0]), s, total[r][0]);
            total[r][1] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[r][1]), s, total[r][1]);
        }
        panel += GROUP * 32, q += GROUP * TILE, scale += TILE, offset += TILE;
    }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) {
        _mm512_storeu_ps(out + r * 32, total[r][0]);
        _mm512_storeu_ps(out + r * 32 + 16, total[r][1]);
    }
}

#else /* AVX2, or any processor */

typedef int16_t Packed;
#define PACKED (WIDE * LANES) /* [WIDE / 2][16][2] */
#define DIRECT_ROWS 3
#define TILE 4

static void direct(const Acts *acts, int64_t row, const Block *block, float *out) {
    const Act *q = acts->q + row * acts->width;
    F16 total = {};
    for (int64_t group = 0; group < acts->groups; group++) {
        int64_t at = group * GROUP, count = MAX(0, MIN(GROUP, acts->in - at));
        I16 sums;
        for (int i = 0; i < LANES; i++) {
            const int8_t *w = block->rows[i] + at;
            int32_t s = 0;
            if (at % WIDE == 0) __builtin_prefetch(block->next + i * acts->in + at);
            if (count == GROUP) {
#ifdef USE_AVX2
                __m256i parts = _mm256_setzero_si256();
                for (int k = 0; k < GROUP; k += 16) {
                    __m256i wide = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(w + k)));
                    parts = _mm256_add_epi32(parts, _mm256_madd_epi16(wide, _mm256_loadu_si256((const __m256i *)(q + at + k))));
                }
                __m128i half = _mm_add_epi32(_mm256_castsi256_si128(parts), _mm256_extracti128_si256(parts, 1));
                half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4e));
                s = _mm_cvtsi128_si32(_mm_add_epi32(half, _mm_shuffle_epi32(half, 0xb1)));
#else
                for (int k = 0; k < GROUP; k++) s += (int16_t)w[k] * q[at + k];
#endif
            } else {
                for (int k = 0; k < count; k++) s += (int16_t)w[k] * q[at + k];
            }
            sums[i] = s;
        }
        total = madd(__builtin_convertvector(sums, F16), all(acts->scale[row * acts->groups + group]), total);
    }
    store(out, total);
}

INLINE void pack(const Block *block, int64_t at, int64_t left, Packed *out) {
    for (int i = 0; i < LANES; i++) {
        int8_t part[WIDE] = {0};
        memcpy(part, block->rows[i] + at, MIN(left, WIDE));
        for (int k = 0; k < WIDE / 2; k++) {
            out[k * 64 + 2 * i] = part[2 * k];
            out[k * 64 + 2 * i + 1] = part[2 * k + 1];
        }
    }
}

INLINE void tile(const Acts *acts, int64_t index, const int rows, int64_t first, int64_t wides, const Packed *panel, const Ahead *ahead, float *out) {
    const Act *q = acts->q + (index * acts->width + first) * TILE;
    const float *scale = acts->scale + (index * acts->groups + first / GROUP) * TILE;
    if (!first) memset(out, 0, rows * 32 * sizeof *out);
    for (int64_t group = 0; group < wides * (WIDE / GROUP); group++, q += GROUP * TILE, panel += GROUP * 32, scale += TILE) {
        if (group % (WIDE / GROUP) == 0) fetch(ahead, index, group / (WIDE / GROUP));
        for (int half = 0; half < 2; half++) {
            union { int32_t lane[LANES]; I16 all; } sums[TILE] = {0};
#ifdef USE_AVX2
            __m256i low[TILE], high[TILE];
            for (int r = 0; r < rows; r++) low[r] = high[r] = _mm256_setzero_si256();
            for (int k = 0; k < GROUP / 2; k++) {
                __m256i left = _mm256_loadu_si256((const __m256i *)(panel + k * 64 + half * 32));
                __m256i right = _mm256_loadu_si256((const __m256i *)(panel + k * 64 + half * 32 + 16));
#pragma GCC unroll 4
                for (int r = 0; r < rows; r++) {
                    int32_t pair;
                    memcpy(&pair, q + (k * TILE + r) * 2, 4);
                    __m256i x = _mm256_set1_epi32(pair);
                    low[r] = _mm256_add_epi32(low[r], _mm256_madd_epi16(left, x));
                    high[r] = _mm256_add_epi32(high[r], _mm256_madd_epi16(right, x));
                }
            }
            for (int r = 0; r < rows; r++) {
                memcpy(sums[r].lane, &low[r], 32);
                memcpy(sums[r].lane + 8, &high[r], 32);
            }
#else
            for (int k = 0; k < GROUP / 2; k++) {
                const Packed *w = panel + k * 64 + half * 32;
                for (int r = 0; r < rows; r++) {
                    const Act *x = q + (k * TILE + r) * 2;
                    for (int i = 0; i < LANES; i++) sums[r].lane[i] += x[0] * w[2 * i] + x[1] * w[2 * i + 1];
                }
            }
#endif
            for (int r = 0; r < rows; r++) {
                float *at = out + r * 32 + half * 16;
                store(at, madd(__builtin_convertvector(sums[r].all, F16), all(scale[r]), load(at)));
            }
        }
    }
}

#endif

/* All tiles of the activations times a packed panel. */
static void tiles(const Acts *acts, int64_t first, int64_t wides, const Packed *panel, const Ahead *ahead, float *out) {
    int64_t whole = acts->rows / TILE;
    for (int64_t i = 0; i < whole; i++) tile(acts, i, TILE, first, wides, panel, ahead, out + i * TILE * 32);
    float *to = out + whole * TILE * 32;
    switch (acts->rows % TILE) {
#if TILE > 4
    case 5: tile(acts, whole, 5, first, wides, panel, ahead, to); break;
    case 4: tile(acts, whole, 4, first, wides, panel, ahead, to); break;
#endif
    case 3: tile(acts, whole, 3, first, wides, panel, ahead, to); break;
    case 2: tile(acts, whole, 2, first, wides, panel, ahead, to); break;
    case 1: tile(acts, whole, 1, first, wides, panel, ahead, to); break;
    }
}

/* out[rows of acts][32]: without the scales of the weights. rest: what rounding took from the same rows, or NULL; its product goes behind `out`. */
static void panel_product(const Acts *acts, const Acts *rest, const Block *left, const Block *right, Packed *panel, float *out) {
    float *behind = out + acts->rows * 32;
    if (acts->rows <= DIRECT_ROWS) {
        for (int64_t row = 0; row < acts->rows; row++) {
            direct(acts, row, left, out + row * 32);
            direct(acts, row, right, out + row * 32 + 16);
            if (!rest) continue;
            direct(rest, row, left, behind + row * 32);
            direct(rest, row, right, behind + row * 32 + 16);
        }
        return;
    }
    int64_t parts = (acts->rows + TILE - 1) / TILE + 1;
    const Ahead nothing = {0};
    for (int64_t first = 0; first < acts->width; first += DEPTH) {
        int64_t wides = MIN(DEPTH, acts->width - first) / WIDE, end = first + wides * WIDE;
        Ahead ahead = {.stride = acts->in, .share = acts->rows <= FETCH_ROWS ? UP(2 * LANES, parts) / parts : 0};
        ahead.left = end == acts->width ? left->next : left->rows[0] + end;
        ahead.right = end == acts->width ? right->next : right->rows[0] + end;
        for (int64_t wide = 0; wide < wides; wide++) {
            int64_t at = first + wide * WIDE;
            fetch(&ahead, parts - 1, wide);
            pack(left, at, acts->in - at, panel + wide * 2 * PACKED);
            pack(right, at, acts->in - at, panel + wide * 2 * PACKED + 64 / sizeof(Packed));
        }
        tiles(acts, first, wides, panel, &ahead, out);
        if (rest) tiles(rest, first, wides, panel, &nothing, behind);
    }
}
