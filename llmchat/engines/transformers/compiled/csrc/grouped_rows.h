/* Single rows of grouped weights: the embeddings of tokens. */
#pragma once
#include "grouped.h"

static void unpack_any(const uint8_t *p, int bits, u8x64 codes[VECTORS]) {
    switch (bits) {
    case 2: unpack_chunk(p, 2, codes); break;
    case 3: unpack_chunk(p, 3, codes); break;
    case 4: unpack_chunk(p, 4, codes); break;
    case 5: unpack_chunk(p, 5, codes); break;
    case 6: unpack_chunk(p, 6, codes); break;
    case 8: unpack_chunk(p, 8, codes); break;
    }
}

/* out[in]: row `row` of a matrix, dequantised. */
static void read_grouped_row(const Matrix *matrix, int64_t row, float *out) {
    const Grouping *grouping = matrix->grouping;
    const int8_t *table = grouping->has_table ? matrix->weight : NULL;
    int64_t lane = row % LANES, chunks = chunks_of(matrix->in), halves = grouping->halves;
    f32x16 scale[MOST_GROUPS], minimum[MOST_GROUPS];
    ScaleReader reader = {.at = grouped_rows(matrix, row)};
    for (int64_t chunk = 0; chunk < chunks; chunk++, reader.at += grouping->bits * 64) {
        int64_t in_piece = chunk % (PIECE / CHUNK), left = MIN(PIECE / CHUNK, chunks - chunk);
        if (!in_piece) read_scales(&reader, grouping, left * halves, scale, minimum, 1);
        u8x64 codes[VECTORS];
        unpack_any(reader.at, grouping->bits, codes);
        for (int64_t i = 0; i < MIN(CHUNK, matrix->in - chunk * CHUNK); i++) {
            int64_t group = (in_piece * CHUNK + i) * halves / CHUNK;
            uint8_t code = codes[i / 4][4 * lane + i % 4];
            float number = table ? table[code] : code - grouping->zero;
            out[chunk * CHUNK + i] = scale[group][lane] * number;
            if (has_minimum(grouping)) out[chunk * CHUNK + i] -= minimum[group][lane];
        }
    }
}
