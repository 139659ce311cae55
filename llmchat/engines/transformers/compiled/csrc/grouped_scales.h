/* The scales of grouped weights, of 16 rows at once, in the order of quantised/packed.py. */
#pragma once
#include "model.h"

#define CODE_CHUNK 32  /* columns whose codes are packed together */
#define CODE_PIECE 512 /* columns whose scales are stored together, in front of their codes */
#define MOST_GROUPS (CODE_PIECE / 16)

typedef uint8_t u8x16 __attribute__((vector_size(16)));
typedef int8_t i8x16 __attribute__((vector_size(16)));

INLINE f32x16 load_u8(const uint8_t *p) {
#ifdef USE_AVX512
    return (f32x16)_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)p)));
#else
    u8x16 v;
    memcpy(&v, p, sizeof v);
    return __builtin_convertvector(v, f32x16);
#endif
}

INLINE f32x16 load_i8(const uint8_t *p) {
#ifdef USE_AVX512
    return (f32x16)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)p)));
#else
    i8x16 v;
    memcpy(&v, p, sizeof v);
    return __builtin_convertvector(v, f32x16);
#endif
}

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

/* The scales of a block of rows, as far as they have been read. scale, minimum, zeros: of the block
 * of columns at hand, of which `left` groups are to come. */
typedef struct {
    const uint8_t *at;
    f32x16 scale, minimum, zeros;
    int64_t left;
} ScaleReader;

INLINE f32x16 read_numbers(ScaleReader *reader, int type) {
    const uint8_t *at = reader->at;
    reader->at += LANES * (type == SCALE_F32 ? 4 : 2);
    if (type == SCALE_F16) return load_f16(at);
    return type == SCALE_BF16 ? load_bf16((const bf16 *)at) : load((const float *)at);
}

static void begin_block(ScaleReader *reader, const Grouping *grouping) {
    reader->left = grouping->block_groups;
    reader->scale = read_numbers(reader, grouping->scale_type);
    if (grouping->has_minimum) reader->minimum = read_numbers(reader, grouping->scale_type);
    if (!grouping->has_zeros) return;
    reader->zeros = load_u8(reader->at);
    reader->at += LANES;
}

/* The scale of the next group of each row, and the minimum times its own scale. */
INLINE void read_group(ScaleReader *reader, const Grouping *grouping, f32x16 *scale,
                       f32x16 *minimum) {
    if (!reader->left) begin_block(reader, grouping);
    reader->left--;
    *scale = reader->scale, *minimum = reader->minimum;
    if (grouping->scales == SHARED_BYTES) {
        u8x16 both;
        memcpy(&both, reader->at, sizeof both);
        u8x16 low = both & 15, high = both >> 4;
        *scale *= load_u8((const uint8_t *)&low), *minimum *= load_u8((const uint8_t *)&high);
        reader->at += LANES;
        return;
    }
    if (grouping->scales) {
        int is_signed = grouping->scales == SIGNED_SCALES;
        *scale *= is_signed ? load_i8(reader->at) : load_u8(reader->at);
        reader->at += LANES;
    }
    if (grouping->has_minima) {
        *minimum *= load_u8(reader->at);
        reader->at += LANES;
    }
    if (grouping->has_zeros) *minimum += *scale * reader->zeros;
}

static int has_minimum(const Grouping *grouping) {
    return grouping->has_minimum || grouping->has_zeros;
}

/* The scales and minima of `groups` groups, each `stride` vectors behind the one before; then the
 * reader is at the codes of the piece. */
static void read_scales(ScaleReader *reader, const Grouping *grouping, int64_t groups,
                        f32x16 *scales, f32x16 *minima, int64_t stride) {
    const uint8_t *begin = reader->at;
    for (int64_t g = 0; g < groups; g++)
        read_group(reader, grouping, scales + g * stride, minima + g * stride);
    reader->at = begin + ROUND_UP(reader->at - begin, 64);
}
