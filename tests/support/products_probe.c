/* Prints products of the compiled step in hexadecimal, one instruction set against another: of int8
 * matrices whose sizes are multiples of nothing, and of matrices in groups of 32 columns. */
#include <stdio.h>

#include "step.c"

#define MOST_ROWS 9
#define PIECE_COLUMNS 512

static uint32_t state = 1;

static uint32_t next_random(void) {
    state = state * 1664525u + 1013904223u;
    return state >> 8;
}

static float random_number(void) { return (float)(int32_t)(next_random() % 20001 - 10000) / 3000; }

static void print_products(const char *name, const Matrix *matrix) {
    static float x[MOST_ROWS * 1024], out[MOST_ROWS * 256];
    for (int64_t i = 0; i < MOST_ROWS * matrix->in; i++) x[i] = random_number();
    static const int64_t counts[] = {1, 2, 4, MOST_ROWS};
    for (int i = 0; i < 4; i++) {
        llmchat_multiply(matrix, 1, x, counts[i], out, 1, NULL);
        for (int64_t k = 0; k < counts[i] * matrix->out; k++) {
            uint32_t bits;
            memcpy(&bits, out + k, sizeof bits);
            printf("%s %d %d %08x\n", name, (int)counts[i], (int)k, bits);
        }
    }
}

static void print_int8(int64_t out, int64_t in) {
    static int8_t weight[256 * 1024];
    static float scale[256];
    for (int64_t i = 0; i < out * in; i++) weight[i] = (int8_t)(next_random() % 255 - 127);
    for (int64_t i = 0; i < out; i++) scale[i] = 0.01f + (float)(i % 7);
    print_products("int8", &(Matrix){.weight = weight, .scale = scale, .out = out, .in = in});
}

static void print_grouped(int bits, int zero) {
    static _Alignas(64) uint8_t weight[3 * (PIECE_COLUMNS * 2 + PIECE_COLUMNS * 16)];
    const int64_t blocks = 3, scales = PIECE_COLUMNS / 32 * LANES, codes = PIECE_COLUMNS * 2 * bits;
    const int64_t bytes = scales * 4 + codes;
    for (int64_t block = 0; block < blocks; block++) {
        uint8_t *at = weight + block * bytes;
        for (int64_t i = 0; i < scales; i++) {
            float scale = 0.01f + (float)(next_random() % 100) / 50;
            memcpy(at + i * 4, &scale, sizeof scale);
        }
        for (int64_t i = 0; i < codes; i++) at[scales * 4 + i] = (uint8_t)next_random();
    }
    const Grouping grouping = {
        .bits = bits, .halves = 1, .block_groups = 1, .scale_type = SCALE_F32, .zero = zero};
    char name[] = {'w', (char)('0' + bits), 0};
    print_products(name, &(Matrix){.weight = (int8_t *)weight,
                                   .grouping = &grouping,
                                   .out = blocks * LANES,
                                   .in = PIECE_COLUMNS,
                                   .block_bytes = bytes});
}

int main(void) {
    print_int8(48, 200);
    print_int8(37, 61);
    print_int8(64, 1024);
    print_grouped(2, 0);
    print_grouped(4, 8);
    print_grouped(6, 32);
    print_grouped(8, 128);
    return 0;
}
