/* Single rows of grouped weights: the embeddings of tokens. */
#pragma once
#include "grouped.h"

/* out[in]: row `row` of a matrix, dequantised. */
static void read_grouped_row(const Matrix *matrix, int64_t row, float *out) {
    const Grouping *grouping = matrix->grouping;
    int64_t lane = row % LANES, chunks = chunks_of(matrix->in), halves = grouping->halves;
    f32x16 scale[MOST_GROUPS], minimum[MOST_GROUPS];
    ScaleReader reader = {.at = grouped_rows(matrix, row)};
    for (int64_t chunk = 0; chunk < chunks; chunk++, reader.at += grouping->bits * 64) {
        int64_t in_piece = chunk % (CODE_PIECE / CODE_CHUNK),
                left = MIN(CODE_PIECE / CODE_CHUNK, chunks - chunk);
        if (!in_piece) read_scales(&reader, grouping, left * halves, scale, minimum, 1);
        u8x64 codes[VECTORS];
        unpack_numbers(matrix, reader.at, codes, 1);
        for (int64_t i = 0; i < MIN(CODE_CHUNK, matrix->in - chunk * CODE_CHUNK); i++) {
            int64_t group = (in_piece * CODE_CHUNK + i) * halves / CODE_CHUNK;
            float number = codes[i / 4][4 * lane + i % 4] - grouping->zero;
            out[chunk * CODE_CHUNK + i] = scale[group][lane] * number;
            if (has_minimum(grouping)) out[chunk * CODE_CHUNK + i] -= minimum[group][lane];
        }
    }
}
