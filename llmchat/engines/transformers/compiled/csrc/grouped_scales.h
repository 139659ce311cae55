/* The scales of grouped weights, of 16 rows at once, in the order of quantised/packed.py. */
#pragma once
#include "model.h"

#define CODE_CHUNK 32  /* columns whose codes are packed together */
#define CODE_PIECE 512 /* columns whose scales are stored together, in front of their codes */
#define MOST_GROUPS (CODE_PIECE / 16)

typedef uint8_t u8x16 __attribute__((vector_size(16)));
typedef int8_t i8x16 __attribute__((vector_size(16)));

/* A part of 16 numbers that a register holds. */
#ifdef USE_HALVES
typedef f32x8 scale_part;

INLINE scale_part load_u8(const uint8_t *p) {
    return (scale_part)_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)p)));
}
INLINE scale_part load_i8(const uint8_t *p) {
    return (scale_part)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)p)));
}
INLINE scale_part load_low_bits(const uint8_t *p) {
    __m128i low = _mm_and_si128(_mm_loadl_epi64((const void *)p), _mm_set1_epi8(15));
    return (scale_part)_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(low));
}
INLINE scale_part load_high_bits(const uint8_t *p) {
    __m256i both = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)p));
    return (scale_part)_mm256_cvtepi32_ps(_mm256_srli_epi32(both, 4));
}
#else
typedef f32x16 scale_part;

INLINE scale_part load_u8(const uint8_t *p) {
#ifdef USE_AVX512
    return (f32x16)_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)p)));
#else
    u8x16 v;
    memcpy(&v, p, sizeof v);
    return __builtin_convertvector(v, f32x16);
#endif
}
INLINE scale_part load_i8(const uint8_t *p) {
#ifdef USE_AVX512
    return (f32x16)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)p)));
#else
    i8x16 v;
    memcpy(&v, p, sizeof v);
    return __builtin_convertvector(v, f32x16);
#endif
}
/* The lower and the upper four bits of bytes. */
INLINE scale_part load_low_bits(const uint8_t *p) {
    u8x16 both;
    memcpy(&both, p, sizeof both);
    both &= 15;
    return load_u8((const uint8_t *)&both);
}
INLINE scale_part load_high_bits(const uint8_t *p) {
    u8x16 both;
    memcpy(&both, p, sizeof both);
    both >>= 4;
    return load_u8((const uint8_t *)&both);
}
#endif
#define SCALE_PART_LANES ((int64_t)(sizeof(scale_part) / sizeof(float)))
#define SCALE_PARTS (LANES / SCALE_PART_LANES)

/* Half precision, finite numbers only. */
INLINE f32x16 load_f16(const uint8_t *p) {
#ifdef USE_AVX512
    return (f32x16)_mm512_cvtph_ps(_mm256_loadu_si256((const void *)p));
#else
    u16x16 v;
    memcpy(&v, p, sizeof v);
    i32x16 bits = __builtin_convertvector(v, i32x16);
    /* The exponent is 112 too small; a product makes subnormal numbers normal as well. */
    f32x16 size = (f32x16)((bits & 0x7fff) << 13) * 0x1p112f;
    return (f32x16)((i32x16)size | (bits & 0x8000) << 16);
#endif
}

/* 16 numbers of a type. */
INLINE void load_numbers(const uint8_t *at, int type, scale_part *out) {
#if defined(USE_HALVES) && defined(__F16C__)
    if (type == SCALE_F16) {
        for (int i = 0; i < SCALE_PARTS; i++)
            out[i] = (scale_part)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)at + i));
        return;
    }
#endif
    f32x16 all = type == SCALE_F16    ? load_f16(at)
                 : type == SCALE_BF16 ? load_bf16((const bf16 *)at)
                                      : load((const float *)at);
    memcpy(out, &all, sizeof all);
}

/* The scales of a block of rows, as far as they have been read. scale, minimum, zeros: of the block
 * of columns at hand, of which `left` groups are to come. */
typedef struct {
    const uint8_t *at;
    scale_part scale[SCALE_PARTS], minimum[SCALE_PARTS], zeros[SCALE_PARTS];
    int64_t left;
} ScaleReader;

INLINE void read_numbers(ScaleReader *reader, int type, scale_part *out) {
    load_numbers(reader->at, type, out);
    reader->at += LANES * (type == SCALE_F32 ? 4 : 2);
}

static void begin_block(ScaleReader *reader, const Grouping *grouping) {
    reader->left = grouping->block_groups;
    read_numbers(reader, grouping->scale_type, reader->scale);
    if (grouping->has_minimum) read_numbers(reader, grouping->scale_type, reader->minimum);
    if (!grouping->has_zeros) return;
    for (int i = 0; i < SCALE_PARTS; i++)
        reader->zeros[i] = load_u8(reader->at + i * SCALE_PART_LANES);
    reader->at += LANES;
}

/* Part `i` of the scale of a group of each row, whose own scales are `at`, and of the minimum times
 * its own scale. scales: as in Grouping. */
INLINE void read_part(const ScaleReader *reader, const Grouping *grouping, const int scales,
                      const uint8_t *at, int i, scale_part *scale, scale_part *minimum) {
    scale_part least = reader->minimum[i], step = reader->scale[i];
    at += i * SCALE_PART_LANES;
    if (scales == SHARED_BYTES) {
        *scale = step * load_low_bits(at), *minimum = least * load_high_bits(at);
        return;
    }
    if (scales) {
        step *= scales == SIGNED_SCALES ? load_i8(at) : load_u8(at);
        at += LANES;
    }
    if (grouping->has_minima) least *= load_u8(at);
    if (grouping->has_zeros) least += step * reader->zeros[i];
    *scale = step, *minimum = least;
}

/* The next `count` groups of all 16 rows, which are of one block of columns. */
INLINE void read_groups(ScaleReader *reader, const Grouping *grouping, const int scales,
                        int64_t count, f32x16 *scale, f32x16 *minimum, int64_t stride) {
    int64_t size = LANES * (scales == SHARED_BYTES ? 1 : !!scales + !!grouping->has_minima);
    const uint8_t *at = reader->at;
    for (int64_t g = 0; g < count; g++, at += size, scale += stride, minimum += stride)
#pragma GCC unroll 2
        for (int i = 0; i < SCALE_PARTS; i++)
            read_part(reader, grouping, scales, at, i, (scale_part *)scale + i,
                      (scale_part *)minimum + i);
    reader->at = at;
}

static int has_minimum(const Grouping *grouping) {
    return grouping->has_minimum || grouping->has_zeros;
}

/* Whether a group has one number of half precision, or two, and no scales of its own. */
static int has_plain_scales(const Grouping *grouping) {
    return grouping->block_groups == 1 && grouping->scale_type == SCALE_F16 && !grouping->scales &&
           !grouping->has_minima && !grouping->has_zeros;
}

/* As read_scales, of such groups. */
static void read_plain_scales(ScaleReader *reader, int with_minima, int64_t groups, f32x16 *scale,
                              f32x16 *minimum, int64_t stride) {
    const uint8_t *at = reader->at;
    for (int64_t g = 0; g < groups; g++, scale += stride, minimum += stride) {
        load_numbers(at, SCALE_F16, (scale_part *)scale), at += 2 * LANES;
        if (!with_minima) continue;
        load_numbers(at, SCALE_F16, (scale_part *)minimum), at += 2 * LANES;
    }
    reader->at = at;
}

/* The scales and minima of `groups` groups, each `stride` vectors behind the one before; then the
 * reader is at the codes of the piece. */
static void read_scales(ScaleReader *reader, const Grouping *grouping, int64_t groups,
                        f32x16 *scales, f32x16 *minima, int64_t stride) {
    const uint8_t *begin = reader->at;
    int64_t g = 0, count;
    if (has_plain_scales(grouping)) {
        read_plain_scales(reader, grouping->has_minimum, groups, scales, minima, stride);
        g = groups;
    }
    for (; g < groups; g += count, reader->left -= count) {
        if (!reader->left) begin_block(reader, grouping);
        count = MIN(reader->left, groups - g);
        f32x16 *scale = scales + g * stride, *minimum = minima + g * stride;
        /* The kind is a constant in the loop. */
        if (grouping->scales == SHARED_BYTES)
            read_groups(reader, grouping, SHARED_BYTES, count, scale, minimum, stride);
        else
            read_groups(reader, grouping, grouping->scales, count, scale, minimum, stride);
    }
    reader->at = begin + ROUND_UP(reader->at - begin, 64);
}
