/* Matrices times tokens; see linear.c. */

#ifndef PARKWAY_LINEAR_H
#define PARKWAY_LINEAR_H

#include <stdint.h>

/* What multiplies, beside the vectors' own instructions; the same numbers in __init__.py. */
enum { TILES_NONE, TILES_REAL, TILES_EMULATED };

#define PANEL 64 /* channels that stand side by side */

/* A matrix and what is multiplied with it. */
typedef struct {
    const void *x; /* [tokens, inputs] */
    int64_t tokens, inputs;
    int wide; /* float32 in and out, or bfloat16 */
    const char *weight;
    const float *scales, *bias; /* [channels]; without scales the matrix is bfloat16; bias may be NULL */
    int64_t channels;
    void *out; /* [tokens, channels] */
    char *rows; /* what is multiplied: [tokens][row_bytes] */
    int64_t row_bytes;
    float *row_scales;
    int32_t *row_sums; /* 128 * sum of the rounded */
    int tiles;         /* which of them multiply */
    int gelu;          /* of what comes out */
    int64_t ahead;     /* how many panels further a thread's next one probably is */
} linear_job;

#define LINEAR_SCRATCH (4 * 1024)

/* The rows `row` to `end` - 1, which are rounded already, times the whole matrix, on this thread. `scratch` is LINEAR_SCRATCH
   bytes, aligned to 64. */
void linear_rows(const linear_job *job, int64_t row, int64_t end, char *scratch);

int parkway_linear_int8(const void *x, int64_t tokens, int64_t inputs, int wide, const char *weight, int64_t padded,
                        const float *scales, const float *bias, int64_t channels, void *out, char *rows,
                        float *row_scales, int32_t *row_sums, int tiles, int threads);
int parkway_linear_bfloat16(const void *x, int64_t tokens, int64_t inputs, const char *weight, const float *bias,
                            int64_t channels, void *out, int tiles, int threads);

#endif
