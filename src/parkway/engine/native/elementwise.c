/* What stands between the matrices, in bfloat16: norms, rotations, gates. Computed in float32 and rounded once. */

#include <string.h>

#include "threads.h"
#include "vectors.h"

#define ITEM (1 << 15) /* numbers of one item of work: less is done sooner than a second thread wakes up */

typedef struct {
    const uint16_t *x, *other;
    const float *cos, *sin;
    uint16_t *out;
    int64_t rows, stride, heads, size;
    int64_t item_rows;
    float epsilon;
} rows_job;

static int in_rows(work_fn work, rows_job *job, int64_t row_size, int threads) {
    job->item_rows = row_size < ITEM ? ITEM / row_size : 1;
    return parallel(work, job, (job->rows + job->item_rows - 1) / job->item_rows, threads, 0);
}

static int64_t item_end(const rows_job *job, int64_t item) {
    int64_t end = (item + 1) * job->item_rows;
    return end < job->rows ? end : job->rows;
}

TARGET static void normalise(void *data, int64_t item, char *scratch) {
    (void)scratch;
    const rows_job *job = data;
    for (int64_t row = item * job->item_rows; row < item_end(job, item); row++) {
        const uint16_t *x = job->x + row * job->stride;
        __m512 squares = _mm512_setzero_ps();
        for (int64_t i = 0; i < job->size; i += 16) {
            __m512 part = load16(x, i, 0, first(job->size - i));
            squares = _mm512_fmadd_ps(part, part, squares);
        }
        float mean = _mm512_reduce_add_ps(squares) / (float)job->size;
        __m512 factor = _mm512_div_ps(_mm512_set1_ps(1.0f), _mm512_sqrt_ps(_mm512_set1_ps(mean + job->epsilon)));
        for (int64_t i = 0; i < job->size; i += 16) {
            __mmask16 m = first(job->size - i);
            __m512 weight = load16(job->other, i, 0, m);
            store16(job->out + row * job->size, i, 0, m, _mm512_mul_ps(_mm512_mul_ps(load16(x, i, 0, m), factor), weight));
        }
    }
}

/* Each row [size], `stride` apart, divided by the root of its mean square and multiplied by `weight`: out [rows, size]. */
int parkway_rms_norm(const uint16_t *x, int64_t stride, const uint16_t *weight, float epsilon, uint16_t *out, int64_t rows,
                     int64_t size, int threads) {
    rows_job job = {.x = x, .other = weight, .out = out, .rows = rows, .stride = stride, .size = size, .epsilon = epsilon};
    return in_rows(normalise, &job, size, threads);
}

TARGET static void rotate(void *data, int64_t item, char *scratch) {
    (void)scratch;
    const rows_job *job = data;
    const int64_t half = job->size / 2;
    for (int64_t row = item * job->item_rows; row < item_end(job, item); row++) {
        const float *cos = job->cos + row * job->size, *sin = job->sin + row * job->size;
        for (int64_t head = 0; head < job->heads; head++) {
            const uint16_t *x = job->x + row * job->stride + head * job->size;
            uint16_t *out = job->out + (row * job->heads + head) * job->size;
            for (int64_t i = 0; i < half; i += 16) {
                __mmask16 m = first(half - i);
                __m512 a = load16(x, i, 0, m), b = load16(x, half + i, 0, m);
                __m512 c = load16(cos, i, 1, m), s = load16(sin, i, 1, m);
                store16(out, i, 0, m, _mm512_fmsub_ps(a, c, _mm512_mul_ps(b, s)));
                store16(out, half + i, 0, m, _mm512_fmadd_ps(b, c, _mm512_mul_ps(a, s)));
            }
        }
    }
}

/* The pairs (i, i + size / 2) of each head turned by the angle of its token: x [tokens, heads, size], of which tokens are
   `stride` apart, and cos and sin float32 [tokens, size]; out [tokens, heads, size]. */
int parkway_rotate(const uint16_t *x, int64_t stride, const float *cos, const float *sin, uint16_t *out, int64_t tokens,
                   int64_t heads, int64_t size, int threads) {
    rows_job job = {.x = x, .cos = cos, .sin = sin, .out = out, .rows = tokens, .stride = stride, .heads = heads, .size = size};
    return in_rows(rotate, &job, heads * size, threads);
}

/* x / (1 + e^-x), to 2e-4 of it: it is rounded to bfloat16 anyway. */
INLINE __m512 silu(__m512 x) {
    __m512 power = exp2_rough_16(_mm512_mul_ps(_mm512_max_ps(_mm512_set1_ps(-87.0f), x), _mm512_set1_ps(-1.44269504f)));
    return _mm512_mul_ps(x, _mm512_rcp14_ps(_mm512_add_ps(_mm512_set1_ps(1.0f), power)));
}

TARGET static void gate(void *data, int64_t item, char *scratch) {
    (void)scratch;
    const rows_job *job = data;
    for (int64_t row = item * job->item_rows; row < item_end(job, item); row++)
        for (int64_t i = 0; i < job->size; i += 16) {
            __mmask16 m = first(job->size - i);
            __m512 x = load16(job->x + row * job->stride, i, 0, m), up = load16(job->other + row * job->stride, i, 0, m);
            store16(job->out + row * job->size, i, 0, m, _mm512_mul_ps(silu(x), up));
        }
}

/* silu(x) * up: both [rows, size], of which rows are `stride` apart; out [rows, size]. */
int parkway_gate(const uint16_t *x, const uint16_t *up, int64_t stride, uint16_t *out, int64_t rows, int64_t size, int threads) {
    rows_job job = {.x = x, .other = up, .out = out, .rows = rows, .stride = stride, .size = size};
    return in_rows(gate, &job, 4 * size, threads);
}
