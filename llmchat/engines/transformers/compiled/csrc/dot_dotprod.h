/* Integer dot products of one group with arm64's dot product: four products of bytes are added to
 * each 32-bit lane. */
#pragma once

/* The dot product of GROUP weights and activations. */
INLINE int32_t dot_group(const int8_t *w, const act_t *q) {
    int32x4_t sums = vdotq_s32(vdupq_n_s32(0), vld1q_s8(w), vld1q_s8(q));
    return vaddvq_s32(vdotq_s32(sums, vld1q_s8(w + 16), vld1q_s8(q + 16)));
}

/* sums[rows]: of a group of each row of a tile, times 16 packed columns. */
INLINE void sum_group(const act_t *q, const packed_t *panel, const int rows, GroupSums *sums) {
    int32x4_t total[TILE_ROWS][4];
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < 4; i++) total[r][i] = vdupq_n_s32(0);
#pragma GCC unroll 8
    for (int k = 0; k < GROUP / 4; k++) {
        int8x16_t weights[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) weights[i] = vld1q_s8(panel + k * 128 + i * 16);
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            int32_t four;
            memcpy(&four, q + (k * TILE_ROWS + r) * 4, 4);
            int8x16_t x = vreinterpretq_s8_s32(vdupq_n_s32(four));
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) total[r][i] = vdotq_s32(total[r][i], weights[i], x);
        }
    }
    for (int r = 0; r < rows; r++) memcpy(sums[r].lane, total[r], sizeof total[r]);
}
