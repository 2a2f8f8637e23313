/* Tiles: 8 registers of up to 16 rows of 64 bytes, which Intel's AMX multiplies. Every operation is here twice: `real_...`
   are the processor's, and `emulated_...` the same in C, so that whatever is built of them can be tried on any processor.
   The emulation keeps to the pseudo-code of Intel's manual (volume 2), and ends the process where a processor would refuse.

   A tile is named by a literal number: instructions contain it. */

#ifndef PARKWAY_TILES_H
#define PARKWAY_TILES_H

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "vectors.h"

/* What LDTILECFG reads. */
typedef struct {
    uint8_t palette, start_row, none[14];
    uint16_t row_bytes[8], none2[8];
    uint8_t rows[8], none3[8];
} tile_shapes;

#if __has_include(<amxbf16intrin.h>)
#define REAL_TILES 1
#define real_target \
    __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16,amx-tile,amx-int8,amx-bf16")))
#define real_release _tile_release
#define real_zero _tile_zero
#define real_load _tile_loadd
#define real_store _tile_stored
#define real_dot_int8 _tile_dpbsud
#define real_dot_bfloat16 _tile_dpbf16ps

real_target static inline void real_shape(const tile_shapes *shapes) {
    /* gcc's own says that 8 bytes of the 64 are read, and may leave out what stores the others. */
    __asm__ volatile("" ::"r"(shapes) : "memory");
    _tile_loadconfig(shapes);
}
#else
#define REAL_TILES 0 /* a compiler that does not know them */
#endif

#define emulated_target TARGET

static _Thread_local struct {
    tile_shapes shapes;
    union {
        int8_t s8[64];
        uint8_t u8[64];
        uint16_t bfloat16[32];
        int32_t s32[16];
        float f32[16];
    } row[8][16];
} emulated;

static inline void emulated_demand(int fine, const char *what) {
    if (fine) return;
    fprintf(stderr, "tiles: a processor would refuse this: %s\n", what);
    abort();
}

static inline void emulated_demand_tile(int tile) {
    emulated_demand(emulated.shapes.palette == 1, "no shapes were loaded");
    emulated_demand(emulated.shapes.rows[tile] > 0, "the tile has no shape");
}

static inline void emulated_shape(const tile_shapes *shapes) {
    static const uint8_t zeros[16];
    emulated_demand(shapes->palette == 1 && shapes->start_row == 0, "the only palette is 1");
    emulated_demand(!memcmp(shapes->none, zeros, 14) && !memcmp(shapes->none2, zeros, 16) && !memcmp(shapes->none3, zeros, 8),
                    "what is reserved has to be 0");
    for (int tile = 0; tile < 8; tile++) {
        emulated_demand(shapes->rows[tile] <= 16 && shapes->row_bytes[tile] <= 64, "a tile is 16 rows of 64 bytes at most");
        emulated_demand(!shapes->rows[tile] == !shapes->row_bytes[tile], "either a tile has a shape or none");
    }
    memset(&emulated, 0, sizeof emulated);
    emulated.shapes = *shapes;
}

static inline void emulated_release(void) { memset(&emulated, 0, sizeof emulated); }

static inline void emulated_zero(int tile) {
    emulated_demand_tile(tile);
    memset(emulated.row[tile], 0, sizeof emulated.row[tile]);
}

static inline void emulated_load(int tile, const char *from, int64_t stride) {
    emulated_zero(tile);
    for (int row = 0; row < emulated.shapes.rows[tile]; row++)
        memcpy(emulated.row[tile] + row, from + row * stride, emulated.shapes.row_bytes[tile]);
}

static inline void emulated_store(int tile, char *to, int64_t stride) {
    emulated_demand_tile(tile);
    for (int row = 0; row < emulated.shapes.rows[tile]; row++)
        memcpy(to + row * stride, emulated.row[tile] + row, emulated.shapes.row_bytes[tile]);
}

/* sums [m, n], a [m, k], b [k, n]. */
static inline void emulated_demand_dot(int sums, int a, int b) {
    const tile_shapes *shapes = &emulated.shapes;
    emulated_demand_tile(sums), emulated_demand_tile(a), emulated_demand_tile(b);
    emulated_demand(sums != a && sums != b && a != b, "three times the same tile, or twice");
    emulated_demand(!(shapes->row_bytes[sums] % 4 || shapes->row_bytes[a] % 4 || shapes->row_bytes[b] % 4), "no whole numbers");
    emulated_demand(shapes->rows[sums] == shapes->rows[a], "sums and a differ in rows");
    emulated_demand(shapes->row_bytes[sums] == shapes->row_bytes[b], "sums and b differ in columns");
    emulated_demand(shapes->row_bytes[a] == 4 * shapes->rows[b], "a has not as many columns as b has rows");
}

TARGET static inline void emulated_dot_int8(int sums, int a, int b) {
    emulated_demand_dot(sums, a, b);
    for (int m = 0; m < emulated.shapes.rows[sums]; m++)
        for (int k = 0; k < emulated.shapes.rows[b]; k++)
            for (int n = 0; n < emulated.shapes.row_bytes[sums] / 4; n++) {
                const int8_t *x = emulated.row[a][m].s8 + 4 * k;
                const uint8_t *w = emulated.row[b][k].u8 + 4 * n;
                int32_t sum = x[0] * w[0] + x[1] * w[1] + x[2] * w[2] + x[3] * w[3];
                emulated.row[sums][m].s32[n] = (int32_t)((uint32_t)emulated.row[sums][m].s32[n] + (uint32_t)sum);
            }
}

/* Denormal numbers count as zero, before and after every operation. */
TARGET static inline float emulated_flush(float x) { return fabsf(x) < FLT_MIN ? copysignf(0.0f, x) : x; }

TARGET static inline float emulated_wide(uint16_t bfloat16) {
    uint32_t bits = (uint32_t)bfloat16 << 16;
    float x;
    memcpy(&x, &bits, 4);
    return emulated_flush(x);
}

TARGET static inline void emulated_dot_bfloat16(int sums, int a, int b) {
    emulated_demand_dot(sums, a, b);
    for (int m = 0; m < emulated.shapes.rows[sums]; m++) {
        float even[16] = {0}, odd[16] = {0};
        for (int k = 0; k < emulated.shapes.rows[b]; k++)
            for (int n = 0; n < emulated.shapes.row_bytes[sums] / 4; n++) {
                const uint16_t *x = emulated.row[a][m].bfloat16 + 2 * k, *w = emulated.row[b][k].bfloat16 + 2 * n;
                even[n] = emulated_flush(fmaf(emulated_wide(x[0]), emulated_wide(w[0]), even[n]));
                odd[n] = emulated_flush(fmaf(emulated_wide(x[1]), emulated_wide(w[1]), odd[n]));
            }
        for (int n = 0; n < emulated.shapes.row_bytes[sums] / 4; n++) {
            float *sum = emulated.row[sums][m].f32 + n;
            *sum = emulated_flush(emulated_flush(*sum) + emulated_flush(even[n] + odd[n]));
        }
    }
}

#endif
