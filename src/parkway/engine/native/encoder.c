/* Sentence encoders of the BERT family, whole: token ids in, hidden states and their means out.

   Texts lie side by side without padding. All of a layer but its attention works on one token at a time. So a pass is two
   steps for each layer: attention, of which an item of work is one head of one text, and all the rest up to the next attention,
   of which an item is a block of tokens. What a thread has of its block stays in its cache, and threads wait for one another
   twice a layer. A text's result does not depend on the texts beside it, nor on how the work was divided.

   Matrices are of 8 bits or bfloat16, as in linear.c. What is rounded to 8 bits is rotated before: each 64 numbers are multiplied
   by a Hadamard matrix, and those of the weights by its inverse before they are packed, so that the product is the same. That
   spreads what sticks out, and less is lost by rounding to a share of the largest. Source: Ashkboos et al., 2024,
   arXiv:2404.00456. */

#include <math.h>
#include <string.h>

#include "linear.h"
#include "text_attention.h"
#include "threads.h"
#include "vectors.h"

#define BLOCK 96 /* the most tokens of a block: whole passes, and whole tiles */
#define PASS 6   /* tokens that linear.c takes at once */
#define FEW 40   /* tokens that one thread encodes sooner than several that wait for one another, where others want the cores too */

/* Addresses, as the caller lays them out. */
typedef struct {
    const char *weight;  /* in panels */
    const float *scales; /* NULL: bfloat16 */
    const float *bias;
} matrix;

typedef struct {
    const float *weight, *bias;
} norm;

typedef struct {
    matrix qkv, output, up, down;
    norm attended, fed;
} layer;

typedef struct {
    const float *words, *positions; /* [.., hidden]; a position's contains that of the type */
    norm norm;
} embeddings;

typedef struct {
    const embeddings *embeddings;
    const layer *layers;
    int64_t depth, hidden, inner, heads, dim; /* hidden, inner and heads * dim are multiples of 64, dim of 32 */
    float scale;   /* of scores, times log2(e) */
    float epsilon; /* of norms */
} shape;

typedef struct {
    const shape *shape;
    const int64_t *tokens, *starts; /* [starts[texts]], [texts + 1] */
    int64_t texts, block;           /* block: its tokens */
    float *states, *means;          /* [tokens, hidden], [texts, hidden] */
    uint16_t *qkv, *mixed;          /* [tokens, 3, heads * dim], [tokens, heads * dim] */
    int64_t now;                    /* the layer; -1: the embeddings */
    int int8_tiles, bfloat16_tiles; /* which of them multiply */
} encoder_job;

/* A thread's own memory. */
typedef struct {
    int64_t start, count; /* tokens */
    char *tiles;
    char *rows; /* what is multiplied next, in 8 bits or bfloat16 */
    uint16_t *fed;  /* [count, inner] */
    float *added;   /* [count, hidden] */
    float *rotated; /* one row */
    float *row_scales;
    int32_t *row_sums;
} block;

static int64_t widest(const shape *s) {
    int64_t wide = s->inner > s->hidden ? s->inner : s->hidden;
    return wide > s->heads * s->dim ? wide : s->heads * s->dim;
}

static size_t block_room(const encoder_job *job) {
    const shape *s = job->shape;
    return LINEAR_SCRATCH + job->block * (2 * widest(s) + 2 * s->inner + 4 * s->hidden + 8) + 4 * widest(s);
}

static block block_in(const encoder_job *job, int64_t item, char *scratch) {
    const shape *s = job->shape;
    block b = {.start = item * job->block, .tiles = scratch, .rows = scratch + LINEAR_SCRATCH};
    int64_t left = job->starts[job->texts] - b.start;
    b.count = left < job->block ? left : job->block;
    b.fed = (uint16_t *)(b.rows + job->block * 2 * widest(s));
    b.added = (float *)(b.fed + job->block * s->inner);
    b.rotated = b.added + job->block * s->hidden;
    b.row_scales = b.rotated + widest(s);
    b.row_sums = (int32_t *)(b.row_scales + job->block);
    return b;
}

/* Sums and differences of numbers that are 1, 2, 4 or 8 places apart. */
#define BUTTERFLY(x, moved, minus) _mm512_fmadd_ps(x, _mm512_mask_blend_ps(minus, _mm512_set1_ps(1), _mm512_set1_ps(-1)), moved)
INLINE __m512 rotate_16(__m512 x) {
    x = BUTTERFLY(x, _mm512_permute_ps(x, 0xb1), 0xaaaa);
    x = BUTTERFLY(x, _mm512_permute_ps(x, 0x4e), 0xcccc);
    x = BUTTERFLY(x, _mm512_shuffle_f32x4(x, x, 0xb1), 0xf0f0);
    return BUTTERFLY(x, _mm512_shuffle_f32x4(x, x, 0x4e), 0xff00);
}

/* 64 numbers times a Hadamard matrix of 1 and -1; the largest magnitudes are kept in `peak`. */
INLINE __m512 rotate_64(const void *x, int64_t i, int wide, float *to, __m512 peak) {
    __m512 a = rotate_16(load16(x, i, wide, 0xffff)), b = rotate_16(load16(x, i + 16, wide, 0xffff));
    __m512 c = rotate_16(load16(x, i + 32, wide, 0xffff)), d = rotate_16(load16(x, i + 48, wide, 0xffff));
    __m512 ab = _mm512_add_ps(a, b), cd = _mm512_add_ps(c, d);
    a = _mm512_sub_ps(a, b), c = _mm512_sub_ps(c, d);
    __m512 r[4] = {_mm512_add_ps(ab, cd), _mm512_add_ps(a, c), _mm512_sub_ps(ab, cd), _mm512_sub_ps(a, c)};
#pragma GCC unroll 4
    for (int n = 0; n < 4; n++) {
        _mm512_storeu_ps(to + i + 16 * n, r[n]);
        peak = _mm512_max_ps(peak, _mm512_abs_ps(r[n]));
    }
    return peak;
}

/* Row `r` of what is multiplied next, `size` numbers. */
TARGET static void round_row(block *own, int64_t r, const void *x, int wide, int64_t size) {
    __m512 peaks = _mm512_setzero_ps();
    for (int64_t i = 0; i < size; i += 64) peaks = rotate_64(x, i, wide, own->rotated, peaks);
    float peak = _mm512_reduce_max_ps(peaks);
    __m512 factor = _mm512_set1_ps(peak > 0 ? 127.0f / peak : 0.0f);
    __m512i sum = _mm512_setzero_si512();
    char *out = own->rows + r * size;
    for (int64_t i = 0; i < size; i += 16) {
        __m512i q = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(own->rotated + i), factor));
        sum = _mm512_add_epi32(sum, q);
        _mm_storeu_si128((__m128i *)(out + i), _mm512_cvtsepi32_epi8(q));
    }
    own->row_scales[r] = peak / 127.0f;
    own->row_sums[r] = (int32_t)(128u * (uint32_t)_mm512_reduce_add_epi32(sum));
}

/* The sum of two rows, normalised: Ba et al., 2016, arXiv:1607.06450. */
TARGET static void normalise(const float *x, const float *y, const norm *by, float epsilon, int64_t size, float *out) {
    __m512 sums = _mm512_setzero_ps(), squares = sums;
    for (int64_t i = 0; i < size; i += 16) {
        __m512 both = _mm512_add_ps(_mm512_loadu_ps(x + i), _mm512_loadu_ps(y + i));
        sums = _mm512_add_ps(sums, both);
        _mm512_storeu_ps(out + i, both);
    }
    __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(sums) / (float)size);
    for (int64_t i = 0; i < size; i += 16) {
        __m512 off = _mm512_sub_ps(_mm512_loadu_ps(out + i), mean);
        squares = _mm512_fmadd_ps(off, off, squares);
    }
    __m512 factor = _mm512_set1_ps(1.0f / sqrtf(_mm512_reduce_add_ps(squares) / (float)size + epsilon));
    for (int64_t i = 0; i < size; i += 16) {
        __m512 off = _mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(out + i), mean), factor);
        _mm512_storeu_ps(out + i, _mm512_fmadd_ps(off, _mm512_loadu_ps(by->weight + i), _mm512_loadu_ps(by->bias + i)));
    }
}

/* Rows of `size` numbers become what is multiplied with `next`. */
TARGET static void take(block *own, const matrix *next, const void *x, int wide, int64_t size) {
    for (int64_t r = 0; r < own->count; r++) {
        const char *row = (const char *)x + r * size * (wide ? 4 : 2);
        if (next->scales)
            round_row(own, r, row, wide, size);
        else
            for (int64_t i = 0; i < size; i += 16) store16(own->rows + 2 * r * size, i, 0, 0xffff, load16(row, i, wide, 0xffff));
    }
}

static void multiply(const encoder_job *job, const block *own, const matrix *by, int64_t inputs, int64_t channels, void *out,
                     int wide, int gelu) {
    linear_job of = {.wide = wide, .weight = by->weight, .scales = by->scales, .bias = by->bias, .channels = channels, .out = out,
                     .rows = own->rows, .row_bytes = inputs * (by->scales ? 1 : 2), .row_scales = own->row_scales,
                     .row_sums = own->row_sums, .tiles = by->scales ? job->int8_tiles : job->bfloat16_tiles, .gelu = gelu, .ahead = 1};
    linear_rows(&of, 0, own->count, own->tiles);
}

/* What was added to the block's states is, and they are normalised. */
static void settle(const encoder_job *job, const block *own, const norm *by) {
    const int64_t hidden = job->shape->hidden;
    float *states = job->states + own->start * hidden;
    for (int64_t r = 0; r < own->count; r++)
        normalise(states + r * hidden, own->added + r * hidden, by, job->shape->epsilon, hidden, states + r * hidden);
}

static void embed(const encoder_job *job, const block *own) {
    const shape *s = job->shape;
    int64_t text = 0;
    for (int64_t r = 0; r < own->count; r++) {
        int64_t token = own->start + r;
        while (token >= job->starts[text + 1]) text++;
        normalise(s->embeddings->words + job->tokens[token] * s->hidden,
                  s->embeddings->positions + (token - job->starts[text]) * s->hidden, &s->embeddings->norm, s->epsilon, s->hidden,
                  job->states + token * s->hidden);
    }
}

/* A block from behind the attention of a layer to before that of the next. */
static void block_item(void *data, int64_t item, char *scratch) {
    const encoder_job *job = data;
    const shape *s = job->shape;
    const int64_t hidden = s->hidden, attended = s->heads * s->dim;
    block own = block_in(job, item, scratch);
    float *states = job->states + own.start * hidden;
    if (job->now < 0) {
        embed(job, &own);
    } else {
        const layer *now = s->layers + job->now;
        take(&own, &now->output, job->mixed + own.start * attended, 0, attended);
        multiply(job, &own, &now->output, attended, hidden, own.added, 1, 0);
        settle(job, &own, &now->attended);
        take(&own, &now->up, states, 1, hidden);
        multiply(job, &own, &now->up, hidden, s->inner, own.fed, 0, 1);
        take(&own, &now->down, own.fed, 0, s->inner);
        multiply(job, &own, &now->down, s->inner, hidden, own.added, 1, 0);
        settle(job, &own, &now->fed);
    }
    if (job->now + 1 < s->depth) {
        const matrix *next = &s->layers[job->now + 1].qkv;
        take(&own, next, states, 1, hidden);
        multiply(job, &own, next, hidden, 3 * attended, job->qkv + own.start * 3 * attended, 0, 0);
    }
}

static void attention_item(void *data, int64_t item, char *scratch) {
    const encoder_job *job = data;
    const shape *s = job->shape;
    const int64_t text = item / s->heads, head = item % s->heads, attended = s->heads * s->dim, start = job->starts[text];
    const uint16_t *q = job->qkv + start * 3 * attended + head * s->dim;
    text_head own = {.q = q, .k = q + attended, .v = q + 2 * attended, .out = job->mixed + start * attended + head * s->dim,
                     .stride = 3 * attended, .out_stride = attended, .tokens = job->starts[text + 1] - start, .dim = s->dim,
                     .scale = s->scale};
    attend_text(&own, scratch);
}

/* The mean of a text's states, of length 1. */
TARGET static void mean_item(void *data, int64_t text, char *scratch) {
    (void)scratch;
    const encoder_job *job = data;
    const int64_t hidden = job->shape->hidden;
    float *mean = job->means + text * hidden;
    memset(mean, 0, hidden * 4);
    for (int64_t token = job->starts[text]; token < job->starts[text + 1]; token++)
        for (int64_t i = 0; i < hidden; i += 16)
            _mm512_storeu_ps(mean + i, _mm512_add_ps(_mm512_loadu_ps(mean + i), _mm512_loadu_ps(job->states + token * hidden + i)));
    __m512 squares = _mm512_setzero_ps();
    for (int64_t i = 0; i < hidden; i += 16)
        squares = _mm512_fmadd_ps(_mm512_loadu_ps(mean + i), _mm512_loadu_ps(mean + i), squares);
    __m512 factor = _mm512_set1_ps(1.0f / fmaxf(sqrtf(_mm512_reduce_add_ps(squares)), 1e-12f));
    for (int64_t i = 0; i < hidden; i += 16) _mm512_storeu_ps(mean + i, _mm512_mul_ps(_mm512_loadu_ps(mean + i), factor));
}

/* Few tokens are divided between the threads, many into blocks of one size. */
static int64_t block_size(int64_t tokens, int threads) {
    int64_t blocks = (tokens + BLOCK - 1) / BLOCK;
    blocks = (blocks + threads - 1) / threads * threads;
    int64_t size = (tokens + blocks - 1) / blocks;
    return (size + PASS - 1) / PASS * PASS;
}

/* The hidden states of texts, `states` [tokens, hidden], and the means of them, `means` [texts, hidden]. No text is empty, none
   longer than there are positions, and `longest` is the length of the longest. `qkv` and `mixed` are room for the numbers that
   encoder_job has there. */
int parkway_encode(const void *of, const int64_t *tokens, const int64_t *starts, int64_t texts, int64_t longest, float *states,
                   float *means, uint16_t *qkv, uint16_t *mixed, int int8_tiles, int bfloat16_tiles, int threads) {
    const shape *s = of;
    if (starts[texts] <= FEW) threads = 1;
    encoder_job job = {.shape = s, .tokens = tokens, .starts = starts, .texts = texts, .states = states, .means = means, .qkv = qkv,
                       .mixed = mixed, .int8_tiles = int8_tiles, .bfloat16_tiles = bfloat16_tiles,
                       .block = block_size(starts[texts], threads)};
    const int64_t blocks = (starts[texts] + job.block - 1) / job.block;
    for (job.now = -1; job.now < s->depth; job.now++) {
        if (job.now >= 0 && parallel(attention_item, &job, texts * s->heads, threads, text_attention_room(longest, s->dim))) return -1;
        if (parallel(block_item, &job, blocks, threads, block_room(&job))) return -1;
    }
    return parallel(mean_item, &job, texts, threads, 0);
}
