/* Matrices times tokens; see linear.c. */

#ifndef PARKWAY_LINEAR_H
#define PARKWAY_LINEAR_H

#include <stdint.h>

/* What multiplies, beside the vectors' own instructions; the same numbers in __init__.py. */
enum { TILES_NONE, TILES_REAL, TILES_EMULATED };

int parkway_linear_int8(const void *x, int64_t tokens, int64_t inputs, int wide, const char *weight, int64_t padded,
                        const float *scales, const float *bias, int64_t channels, void *out, char *rows,
                        float *row_scales, int32_t *row_sums, int tiles, int threads);
int parkway_linear_bfloat16(const void *x, int64_t tokens, int64_t inputs, const char *weight, const float *bias,
                            int64_t channels, void *out, int tiles, int threads);

#endif
