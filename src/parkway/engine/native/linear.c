/* Linear layers: a matrix of 8-bit or bfloat16 weights times a few tokens, or many.

   8 bits: one scale for each output channel, and one for each token, found anew each time. Weights are stored as w + 128,
   because the instruction wants one side without a sign. With x = sx * qx and w = sw * qw,

       x . w  =  sx * sw * (qx . (qw + 128)  -  128 * sum(qx))

   in which all sums are of integers, and exact. In bfloat16 sums are float32, over inputs in their order. Either way a
   token's result does not depend on the tokens beside it, nor on how the work was divided.

   Where the processor has tiles they multiply from the same panels. 8 bits come out the same, so there the number of tokens
   decides. bfloat16 is rounded otherwise in tiles, so there the matrix decides, whatever the number of tokens. */

#include "linear.h"

#include <string.h>

#include "threads.h"
#include "tiles.h"
#include "vectors.h"

#define ROWS 6        /* tokens that one pass serves: 6 x 4 sums, 4 weights and an input in 32 registers */
#define ITEM_ROWS 192 /* tokens of one item of work: so many that a panel is read from memory seldom */
#define FEW (1 << 16) /* numbers that one thread rounds sooner than a second one wakes up */

TARGET static void round_row(void *data, int64_t row, char *scratch) {
    (void)scratch;
    linear_job *job = data;
    const char *x = (const char *)job->x + row * job->inputs * (job->wide ? 4 : 2);
    float peak = largest_of(x, job->inputs, job->wide);
    __m512 factor = _mm512_set1_ps(peak > 0 ? 127.0f / peak : 0.0f);
    char *out = job->rows + row * job->row_bytes;
    __m512i sum = _mm512_setzero_si512();
    for (int64_t i = 0; i < job->row_bytes; i += 16) {
        __m512i q = _mm512_cvtps_epi32(_mm512_mul_ps(load16(x, i, job->wide, first(job->inputs - i)), factor));
        sum = _mm512_add_epi32(sum, q);
        _mm_storeu_si128((__m128i *)(out + i), _mm512_cvtsepi32_epi8(q));
    }
    job->row_scales[row] = peak / 127.0f;
    /* Without a sign, because what is no number may overflow; its scale is none, and so is what comes of it. */
    job->row_sums[row] = (int32_t)(128u * (uint32_t)_mm512_reduce_add_epi32(sum));
}

INLINE void finish_16(const linear_job *job, int64_t channel, int64_t row, __mmask16 m, __m512 sum) {
    store16(job->out, row * job->channels + channel, job->wide, m, job->gelu ? gelu_16(sum) : sum);
}

INLINE void finish_int8_16(const linear_job *job, int64_t channel, int64_t row, __m512i sum) {
    __mmask16 m = first(job->channels - channel); /* of the last panel maybe none */
    __m512 scale = _mm512_mul_ps(_mm512_maskz_loadu_ps(m, job->scales + channel), _mm512_set1_ps(job->row_scales[row]));
    __m512 bias = job->bias ? _mm512_maskz_loadu_ps(m, job->bias + channel) : _mm512_setzero_ps();
    sum = _mm512_sub_epi32(sum, _mm512_set1_epi32(job->row_sums[row]));
    finish_16(job, channel, row, m, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), scale, bias));
}

TARGET static NOINLINE void finish_int8(const linear_job *job, int64_t channel, int64_t row, __m512i s0, __m512i s1, __m512i s2, __m512i s3) {
    finish_int8_16(job, channel, row, s0);
    finish_int8_16(job, channel + 16, row, s1);
    finish_int8_16(job, channel + 32, row, s2);
    finish_int8_16(job, channel + 48, row, s3);
}

INLINE void finish_bfloat16_16(const linear_job *job, int64_t channel, int64_t row, __m512 sum) {
    __mmask16 m = first(job->channels - channel);
    if (job->bias) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(m, job->bias + channel));
    finish_16(job, channel, row, m, sum);
}

TARGET static NOINLINE void finish_bfloat16(const linear_job *job, int64_t channel, int64_t row, __m512 s0, __m512 s1, __m512 s2, __m512 s3) {
    finish_bfloat16_16(job, channel, row, s0);
    finish_bfloat16_16(job, channel + 16, row, s1);
    finish_bfloat16_16(job, channel + 32, row, s2);
    finish_bfloat16_16(job, channel + 48, row, s3);
}

#define SUM __m512i
#define ZERO _mm512_setzero_si512()
#define DOT _mm512_dpbusd_epi32
#define FINISH finish_int8
#define NAME(rows) multiply_int8_##rows
#include "panel.h"
#undef SUM
#undef ZERO
#undef DOT
#undef FINISH
#undef NAME

#define SUM __m512
#define ZERO _mm512_setzero_ps()
#define DOT(sums, weights, x) _mm512_dpbf16_ps(sums, (__m512bh)(weights), (__m512bh)(x))
#define FINISH finish_bfloat16
#define NAME(rows) multiply_bfloat16_##rows
#include "panel.h"
#undef SUM
#undef ZERO
#undef DOT
#undef FINISH
#undef NAME

/* Asked for early, a quarter of it at each pass: the panel that is probably this thread's next. */
static const char *soon(const linear_job *job, int64_t panel, int64_t pass) {
    int64_t panels = (job->channels + PANEL - 1) / PANEL, next = panel + job->ahead < panels ? panel + job->ahead : panel;
    return job->weight + (4 * next + (pass < 3 ? pass : 3)) * (PANEL / 4) * job->row_bytes;
}

/* Rows of a pass: the first tile of tokens, and the second if there is one. */
static tile_shapes shapes_for(int64_t rows) {
    uint8_t upper = rows < 16 ? (uint8_t)rows : 16, lower = rows > 16 ? (uint8_t)(rows - 16) : upper;
    return (tile_shapes){
        .palette = 1,
        .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
        .rows = {upper, upper, lower, lower, upper, rows > 16 ? lower : 16, 16, 16},
    };
}

#define FINISH(job, channel, row, sums) finish_int8_16(job, channel, row, _mm512_load_si512(sums))
#define NAME(of) emulated_int8_##of
#define TILE(operation) emulated_##operation
#define DOT emulated_dot_int8
#include "tiled.h"
#undef NAME
#undef TILE
#undef DOT
#if REAL_TILES
#define NAME(of) real_int8_##of
#define TILE(operation) real_##operation
#define DOT real_dot_int8
#include "tiled.h"
#undef NAME
#undef TILE
#undef DOT
#endif
#undef FINISH

#define FINISH(job, channel, row, sums) finish_bfloat16_16(job, channel, row, _mm512_load_ps(sums))
#define NAME(of) emulated_bfloat16_##of
#define TILE(operation) emulated_##operation
#define DOT emulated_dot_bfloat16
#include "tiled.h"
#undef NAME
#undef TILE
#undef DOT
#if REAL_TILES
#define NAME(of) real_bfloat16_##of
#define TILE(operation) real_##operation
#define DOT real_dot_bfloat16
#include "tiled.h"
#undef NAME
#undef TILE
#undef DOT
#else
#define real_int8_item emulated_int8_item /* never asked for: see tiles.c */
#define real_bfloat16_item emulated_bfloat16_item
#endif
#undef FINISH

static void multiply_panel(const linear_job *job, int64_t panel, int64_t row, int64_t end, char *scratch) {
    if (job->tiles && !job->scales) {
        (job->tiles == TILES_REAL ? real_bfloat16_item : emulated_bfloat16_item)(job, panel, row, end, scratch);
        return;
    }
    if (job->tiles && end - row > ROWS) { /* fewer wait for the matrix, whatever multiplies it */
        (job->tiles == TILES_REAL ? real_int8_item : emulated_int8_item)(job, panel, row, end, scratch);
        return;
    }
    for (int64_t pass = 0; row < end; pass++) {
        int64_t left = end - row, passes = (left + ROWS - 1) / ROWS;
        int64_t rows = (left + passes - 1) / passes; /* evenly: 8 tokens are twice 4, not 6 and 2 */
        (job->scales ? multiply_int8_by_rows : multiply_bfloat16_by_rows)[rows - 1](job, panel, row, soon(job, panel, pass));
        row += rows;
    }
}

void linear_rows(const linear_job *job, int64_t row, int64_t end, char *scratch) {
    for (int64_t panel = 0; panel * PANEL < job->channels; panel++) multiply_panel(job, panel, row, end, scratch);
}

static void multiply(void *data, int64_t item, char *scratch) {
    const linear_job *job = data;
    int64_t panels = (job->channels + PANEL - 1) / PANEL;
    int64_t row = item / panels * ITEM_ROWS, panel = item % panels;
    multiply_panel(job, panel, row, row + ITEM_ROWS < job->tokens ? row + ITEM_ROWS : job->tokens, scratch);
}

static int multiply_all(linear_job *job, int threads) {
    int64_t panels = (job->channels + PANEL - 1) / PANEL, items = (job->tokens + ITEM_ROWS - 1) / ITEM_ROWS;
    return parallel(multiply, job, panels * items, threads, job->tiles ? LINEAR_SCRATCH : 0);
}

/* out = x . weight + bias, with 8-bit weights in panels, `padded` inputs long. `rows`, `row_scales` and `row_sums` are room
   for the rounded activations: [tokens, padded], [tokens], [tokens]. */
int parkway_linear_int8(const void *x, int64_t tokens, int64_t inputs, int wide, const char *weight, int64_t padded,
                        const float *scales, const float *bias, int64_t channels, void *out, char *rows,
                        float *row_scales, int32_t *row_sums, int tiles, int threads) {
    linear_job job = {x, tokens, inputs, wide, weight, scales, bias, channels, out, rows, padded, row_scales, row_sums, tiles, 0, 2};
    if (parallel(round_row, &job, tokens, tokens * inputs < FEW ? 1 : threads, 0)) return -1;
    return multiply_all(&job, threads);
}

/* The same with bfloat16 weights in panels. `inputs` is even; tiles serve multiples of 32. */
int parkway_linear_bfloat16(const void *x, int64_t tokens, int64_t inputs, const char *weight, const float *bias,
                            int64_t channels, void *out, int tiles, int threads) {
    if (inputs % 32) tiles = TILES_NONE;
    linear_job job = {x, tokens, inputs, 0, weight, NULL, bias, channels, out, (char *)x, 2 * inputs, NULL, NULL, tiles, 0, 2};
    return multiply_all(&job, threads);
}
