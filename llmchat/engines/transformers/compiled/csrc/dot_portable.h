/* Integer dot products of one group in plain C, which the compiler vectorises for its target. */
#pragma once

/* The dot product of GROUP weights and activations. */
INLINE int32_t dot_group(const int8_t *w, const act_t *q) {
    int32_t sum = 0;
    for (int k = 0; k < GROUP; k++) sum += (int16_t)w[k] * q[k];
    return sum;
}

/* sums[rows]: of a group of each row of a tile, times 16 packed columns. */
INLINE void sum_group(const act_t *q, const packed_t *panel, const int rows, GroupSums *sums) {
    for (int k = 0; k < GROUP / 2; k++) {
        const packed_t *w = panel + k * 64;
        for (int r = 0; r < rows; r++) {
            const act_t *x = q + (k * TILE_ROWS + r) * 2;
            for (int i = 0; i < LANES; i++)
                sums[r].lane[i] += x[0] * w[2 * i] + x[1] * w[2 * i + 1];
        }
    }
}
