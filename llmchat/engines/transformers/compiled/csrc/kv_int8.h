/* Keys and values of 8 bits in a KV cache. CACHE_GROUP neighbours of a head share a scale, and a
 * code is 128 + number / scale. A span of one head is contiguous, its codes first:
 *
 *     keys    codes [SPAN / 16][dim / 4][16 keys][4]               scales [SPAN / 16][groups][16]
 *     values  codes [dim / 16][SPAN / 4][16 dimensions][4 values]  scales [groups][SPAN]
 *
 * Scales are bfloat16. Beyond the last position everything may be anything. kv_cache.py has the
 * same layout. */
#pragma once
#include "kv_layout.h"

#ifndef CACHE_GROUP
#define CACHE_GROUP 32
#endif

static int64_t cache_groups(int64_t dim) { return (dim + CACHE_GROUP - 1) / CACHE_GROUP; }

/* Bytes of a key or a value. */
static int64_t cached_bytes(int64_t is_int8, int64_t dim) {
    return is_int8 ? dim + 2 * cache_groups(dim) : 2 * dim;
}

/* Quantise `count` numbers to codes; returns their scale. It is rounded first: then its rounding
 * costs no precision. */
static bf16 quantise_group(const float *x, int64_t count, uint8_t *codes) {
    f32x16 peaks = {};
    for (int64_t i = 0; i < count; i += LANES) peaks = vector_max(vector_abs(load(x + i)), peaks);
    bf16 scale = float_to_bf16(reduce_max(peaks) / 127.0f);
    float step = bf16_to_float(scale), inverse = step >= 1e-30f ? 1.0f / step : 0.0f;
    for (int64_t i = 0; i < count; i += LANES) {
        f32x16 number = load(x + i) * inverse, most = splat(127.0f);
        number = vector_max(-most, -vector_max(-number, -most));
        i32x16 code = round_to_i32(number) + 128;
        u8x16 narrow = __builtin_convertvector(code, u8x16);
        memcpy(codes + i, &narrow, sizeof narrow);
    }
    return scale;
}

/* Write the key [dim] of a position into the buffer of its head. */
static void write_key8(uint8_t *head, int64_t position, const float *key, int64_t dim) {
    int64_t in_span = position % SPAN, panel = in_span / LANES, lane = in_span % LANES;
    uint8_t *span = head + (position - in_span) * cached_bytes(1, dim), codes[CACHE_GROUP];
    bf16 *scale = (bf16 *)(span + SPAN * dim) + panel * cache_groups(dim) * LANES + lane;
    uint8_t *target = span + panel * LANES * dim + lane * 4;
    for (int64_t d = 0; d < dim; d += CACHE_GROUP, scale += LANES) {
        int64_t count = MIN(CACHE_GROUP, dim - d);
        *scale = quantise_group(key + d, count, codes);
        for (int64_t i = 0; i < count; i += 4) memcpy(target + (d + i) * LANES, codes + i, 4);
    }
}

/* The same for a value. */
static void write_value8(uint8_t *head, int64_t position, const float *value, int64_t dim) {
    int64_t in_span = position % SPAN, shift = in_span % 4 * 8;
    uint8_t *span = head + (position - in_span) * cached_bytes(1, dim), codes[CACHE_GROUP];
    bf16 *scale = (bf16 *)(span + SPAN * dim) + in_span;
    uint8_t *target = span + in_span / 4 * 4 * LANES;
    for (int64_t d = 0; d < dim; d += CACHE_GROUP, scale += SPAN) {
        int64_t count = MIN(CACHE_GROUP, dim - d);
        *scale = quantise_group(value + d, count, codes);
        for (int64_t i = 0; i < count; i += LANES, target += SPAN * LANES) {
            u8x16 code;
            i32x16 four;
            memcpy(&code, codes + i, sizeof code);
            memcpy(&four, target, sizeof four);
            four = (four & ~(255 << shift)) | __builtin_convertvector(code, i32x16) << shift;
            memcpy(target, &four, sizeof four);
        }
    }
}

#ifndef USE_VNNI
/* Number `at` of each lane of four codes. */
INLINE f32x16 numbers_of(i32x16 codes, int64_t at) {
    return __builtin_convertvector((codes >> 8 * at & 255) - 128, f32x16);
}

/* The first `count` keys of a span as [16 keys] panels of floats, [count / 16][dim][16]. */
static void unpack_keys(const uint8_t *span, int64_t count, int64_t dim, float *out) {
    const bf16 *scales = (const bf16 *)(span + SPAN * dim);
    for (int64_t panel = 0; panel * LANES < count; panel++)
        for (int64_t d = 0; d < dim; d += 4, span += 4 * LANES, out += 4 * LANES) {
            i32x16 codes;
            memcpy(&codes, span, sizeof codes);
            int64_t group = panel * cache_groups(dim) + d / CACHE_GROUP;
            f32x16 scale = load_bf16(scales + group * LANES);
            for (int64_t i = 0; i < 4; i++) store(out + i * LANES, numbers_of(codes, i) * scale);
        }
}

/* The first `count` values of a span, [dim / 16][SPAN][16]. */
static void unpack_values(const uint8_t *span, int64_t count, int64_t dim, float *out) {
    const bf16 *scales = (const bf16 *)(span + SPAN * dim);
    for (int64_t d = 0; d < dim; d += LANES)
        for (int64_t i = 0; i < count; i++) {
            i32x16 codes;
            memcpy(&codes, span + (d * SPAN + i / 4 * 4 * LANES), sizeof codes);
            f32x16 scale = splat(bf16_to_float(scales[d / CACHE_GROUP * SPAN + i]));
            store(out + d * SPAN + i * LANES, numbers_of(codes, i % 4) * scale);
        }
}
#endif
