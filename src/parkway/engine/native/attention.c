/* Causal attention over a cache in pages, in bfloat16, with sums in float32.

   An item of work is one head of keys and values, up to 16 new tokens of one sequence, and some of the tokens that they
   see: all queries that read the same keys. What a query makes of several parts is united afterwards; where parts end
   depends on nothing but positions, so a query's result is the same whoever computes it. Two pages at a time its keys are
   turned so that a register holds two dimensions of 16 tokens, scores are made, and the softmax goes on from the keys
   before (Milakov and Gimelshein, 2018, arXiv:1805.02867). Nothing is copied but the pages at hand, within the thread's own
   cache. */

#include <math.h>
#include <string.h>

#include "threads.h"
#include "vectors.h"

#define PAGE 32    /* tokens */
#define KEYS 64    /* tokens of two pages, which are read at once */
#define QUERIES 16 /* tokens of one item */
#define ROWS 6     /* queries that are multiplied at once: 6 x 4 sums, 4 keys and a query in 32 registers */

typedef struct {
    int64_t row;      /* of the first new token in q and out */
    int64_t count;    /* new tokens, up to QUERIES */
    int64_t position; /* of the first of them in its sequence */
    int64_t table;    /* where its sequence's page numbers begin */
    int64_t start;    /* of the keys, in the sequence */
    int64_t end;
    int64_t slot; /* where its part of a result goes; -1 for the whole */
} piece;

/* Parts of results, one for each slot: what to unite in `out`. */
typedef struct {
    int64_t row, count; /* as in a piece */
    int64_t slot;       /* the first one */
    int64_t slots;
} merger;

typedef struct {
    const uint16_t *q;            /* [tokens, heads, dim] */
    const uint16_t *keys, *values; /* [pages * PAGE, kv_heads, dim] */
    const piece *pieces;
    const int64_t *tables;
    uint16_t *out; /* [tokens, heads, dim] */
    int64_t heads, kv_heads, dim;
    float scale; /* of scores, times log2(e) */
    const merger *mergers;
    float *parts; /* [slots, kv_heads, QUERIES * heads / kv_heads, dim + 2]: mixed, the sum, the largest score */
} attention_job;

/* A thread's own memory. */
typedef struct {
    uint32_t *keys;   /* [dim / 2][KEYS] pairs of dimensions */
    uint32_t *values; /* [KEYS / 2][dim] pairs of tokens */
    int64_t pairs;    /* of tokens that are there */
    float *mixed;     /* [rows][dim], not yet divided by the sum */
    float *sums;      /* [rows][16] */
    float *tops;      /* [rows] */
    const uint32_t **queries; /* [rows] */
} room;

static size_t room_for(int64_t rows, int64_t dim) {
    return 2 * KEYS * dim * 2 + rows * (dim * 4 + 64 + 4 + 8) + 64;
}

static room room_in(char *scratch, int64_t rows, int64_t dim) {
    room r;
    r.keys = (uint32_t *)scratch;
    r.values = r.keys + KEYS * dim / 2;
    r.mixed = (float *)(r.values + KEYS * dim / 2);
    r.sums = r.mixed + rows * dim;
    r.queries = (const uint32_t **)(r.sums + rows * 16);
    r.tops = (float *)(r.queries + rows);
    return r;
}

TARGET static void turn_keys(const uint16_t *from, int64_t stride, int64_t dim, uint32_t *to) {
    for (int64_t pair = 0; pair < dim / 2; pair += 16)
        for (int64_t token = 0; token < PAGE; token += 16)
            transpose((const uint32_t *)(from + token * stride) + pair, stride / 2, to + pair * KEYS + token, KEYS);
}

TARGET static void pair_values(const uint16_t *from, int64_t stride, int64_t dim, uint32_t *to) {
    __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37, 5, 36,
                                   4, 35, 3, 34, 2, 33, 1, 32, 0);
    __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
    for (int64_t token = 0; token < PAGE; token += 2, from += 2 * stride)
        for (int64_t d = 0; d < dim; d += 32, to += 32) {
            __m512i a = _mm512_loadu_si512(from + d), b = _mm512_loadu_si512(from + stride + d);
            _mm512_store_si512(to, _mm512_permutex2var_epi16(a, low, b));
            _mm512_store_si512(to + 16, _mm512_permutex2var_epi16(a, high, b));
        }
}

/* 2 to the power of x <= 0, to 1e-4 of it: it is rounded to bfloat16 anyway. What is no number stays none. */
INLINE __m512 weight_of(__m512 x) {
    __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 f = _mm512_sub_ps(x, whole);
    __m512 y = _mm512_fmadd_ps(_mm512_set1_ps(9.6181291076284772e-3f), f, _mm512_set1_ps(5.5504108664821580e-2f));
    y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(2.4022650695910072e-1f));
    y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(6.9314718055994531e-1f));
    y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(y, whole);
}

/* The next part of a query's softmax: its scores for the keys at hand become weights, and what it mixed of values before
   shrinks where a score is larger than any before. The query sees the first `seen` of these keys. */
TARGET static NOINLINE void weigh(const attention_job *job, room *own, int64_t row, int64_t seen, __m512 s0, __m512 s1,
                                  __m512 s2, __m512 s3, uint32_t *weights) {
    float *mixed = own->mixed + row * job->dim, *sum = own->sums + row * 16;
    __m512 scale = _mm512_set1_ps(job->scale), none = _mm512_set1_ps(-INFINITY);
    __mmask16 m0 = first(seen), m1 = first(seen - 16), m2 = first(seen - 32), m3 = first(seen - 48);
    s0 = _mm512_mask_mul_ps(none, m0, s0, scale);
    s1 = _mm512_mask_mul_ps(none, m1, s1, scale);
    s2 = _mm512_mask_mul_ps(none, m2, s2, scale);
    s3 = _mm512_mask_mul_ps(none, m3, s3, scale);
    float top = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_max_ps(s0, s1), _mm512_max_ps(s2, s3)));
    float before = own->tops[row];
    if (top > before) {
        if (before > -INFINITY) { /* there were keys before */
            __m512 shrink = weight_of(_mm512_set1_ps(before - top));
            for (int64_t d = 0; d < job->dim; d += 16)
                _mm512_store_ps(mixed + d, _mm512_mul_ps(_mm512_load_ps(mixed + d), shrink));
            _mm512_store_ps(sum, _mm512_mul_ps(_mm512_load_ps(sum), shrink));
        }
        own->tops[row] = before = top;
    }
    __m512 now = _mm512_set1_ps(before);
    __m512 p0 = _mm512_maskz_mov_ps(m0, weight_of(_mm512_sub_ps(s0, now)));
    __m512 p1 = _mm512_maskz_mov_ps(m1, weight_of(_mm512_sub_ps(s1, now)));
    __m512 p2 = _mm512_maskz_mov_ps(m2, weight_of(_mm512_sub_ps(s2, now)));
    __m512 p3 = _mm512_maskz_mov_ps(m3, weight_of(_mm512_sub_ps(s3, now)));
    __m512 more = _mm512_add_ps(_mm512_add_ps(p0, p1), _mm512_add_ps(p2, p3));
    _mm512_store_ps(sum, _mm512_add_ps(_mm512_load_ps(sum), more));
    _mm512_store_si512(weights, (__m512i)_mm512_cvtne2ps_pbh(p1, p0));
    _mm512_store_si512(weights + 16, (__m512i)_mm512_cvtne2ps_pbh(p3, p2));
}

/* Queries `row` to `row` + ROWS - 1 against the keys at hand, of which each sees the first `seen[i]` tokens: `attend_1` to
   `attend_6`. Every sum is a variable with a name of its own, as in panel.h. */
#define DOT(sums, pairs, other) _mm512_dpbf16_ps(sums, (__m512bh)(pairs), (__m512bh)(other))
#define START(r)                                  \
    const uint32_t *q##r = own->queries[row + r]; \
    __m512 s##r##0 = _mm512_setzero_ps(), s##r##1 = s##r##0, s##r##2 = s##r##0, s##r##3 = s##r##0;
#define SCORE(r)                            \
    x = _mm512_set1_epi32((int)q##r[pair]); \
    s##r##0 = DOT(s##r##0, a, x);           \
    s##r##1 = DOT(s##r##1, b, x);           \
    s##r##2 = DOT(s##r##2, c, x);           \
    s##r##3 = DOT(s##r##3, d, x);
#define WEIGH(r) weigh(job, own, row + r, seen[r], s##r##0, s##r##1, s##r##2, s##r##3, weights[r]);
#define LOAD(r)                                                \
    s##r##0 = _mm512_load_ps(own->mixed + (row + r) * dim + at); \
    s##r##1 = _mm512_load_ps(own->mixed + (row + r) * dim + at + 16);
#define MIX(r)                                    \
    x = _mm512_set1_epi32((int)weights[r][pair]); \
    s##r##0 = DOT(s##r##0, a, x);                 \
    s##r##1 = DOT(s##r##1, b, x);
#define STORE(r)                                                \
    _mm512_store_ps(own->mixed + (row + r) * dim + at, s##r##0); \
    _mm512_store_ps(own->mixed + (row + r) * dim + at + 16, s##r##1);

#define ATTEND(ROWS, EACH)                                                                                    \
    TARGET static void attend_##ROWS(const attention_job *job, room *own, int64_t row, const int64_t *seen) { \
        const int64_t dim = job->dim;                                                                         \
        uint32_t weights[ROWS][KEYS / 2] __attribute__((aligned(64)));                                        \
        __m512i x, a, b, c, d;                                                                                \
        EACH(START)                                                                                           \
        for (int64_t pair = 0; pair < dim / 2; pair++) {                                                      \
            const uint32_t *keys = own->keys + pair * KEYS;                                                   \
            a = _mm512_load_si512(keys), b = _mm512_load_si512(keys + 16);                                    \
            c = _mm512_load_si512(keys + 32), d = _mm512_load_si512(keys + 48);                               \
            EACH(SCORE)                                                                                       \
        }                                                                                                     \
        EACH(WEIGH)                                                                                           \
        for (int64_t at = 0; at < dim; at += 32) {                                                            \
            const uint32_t *values = own->values + at;                                                        \
            EACH(LOAD)                                                                                        \
            for (int64_t pair = 0; pair < own->pairs; pair++, values += dim) {                                \
                a = _mm512_load_si512(values), b = _mm512_load_si512(values + 16);                            \
                EACH(MIX)                                                                                     \
            }                                                                                                 \
            EACH(STORE)                                                                                       \
        }                                                                                                     \
    }

#define EACH_1(DO) DO(0)
#define EACH_2(DO) EACH_1(DO) DO(1)
#define EACH_3(DO) EACH_2(DO) DO(2)
#define EACH_4(DO) EACH_3(DO) DO(3)
#define EACH_5(DO) EACH_4(DO) DO(4)
#define EACH_6(DO) EACH_5(DO) DO(5)

ATTEND(1, EACH_1)
ATTEND(2, EACH_2)
ATTEND(3, EACH_3)
ATTEND(4, EACH_4)
ATTEND(5, EACH_5)
ATTEND(6, EACH_6)

static void (*const attend_by_rows[])(const attention_job *, room *, int64_t, const int64_t *) = {
    attend_1, attend_2, attend_3, attend_4, attend_5, attend_6,
};

TARGET static void attend_item(void *data, int64_t item, char *scratch) {
    const attention_job *job = data;
    const piece *own_piece = job->pieces + item / job->kv_heads;
    const int64_t head = item % job->kv_heads, group = job->heads / job->kv_heads, dim = job->dim;
    const int64_t stride = job->kv_heads * dim, rows = own_piece->count * group;
    room own = room_in(scratch, QUERIES * group, dim);
    for (int64_t row = 0; row < rows; row++) {
        int64_t query = (own_piece->row + row / group) * job->heads + head * group + row % group;
        own.queries[row] = (const uint32_t *)(job->q + query * dim);
        own.tops[row] = -INFINITY;
    }
    memset(own.mixed, 0, rows * dim * 4);
    memset(own.sums, 0, rows * 64);
    const int64_t end = own_piece->end;
    for (int64_t start = own_piece->start; start < end; start += KEYS) {
        own.pairs = 0;
        for (int64_t page = start; page < end && page < start + KEYS; page += PAGE) {
            int64_t place = (job->tables[own_piece->table + page / PAGE] * PAGE) * stride + head * dim;
            turn_keys(job->keys + place, stride, dim, own.keys + (page - start));
            pair_values(job->values + place, stride, dim, own.values + own.pairs * dim);
            own.pairs += PAGE / 2;
        }
        int64_t row = start > own_piece->position ? (start - own_piece->position) * group : 0;
        while (row < rows) { /* those before see nothing of these keys */
            int64_t left = rows - row, passes = (left + ROWS - 1) / ROWS, now = (left + passes - 1) / passes;
            int64_t seen[ROWS];
            for (int64_t r = 0; r < now; r++) seen[r] = own_piece->position + (row + r) / group + 1 - start;
            attend_by_rows[now - 1](job, &own, row, seen);
            row += now;
        }
    }
    if (own_piece->slot >= 0) {
        float *part = job->parts + (own_piece->slot * job->kv_heads + head) * QUERIES * group * (dim + 2);
        for (int64_t row = 0; row < rows; row++, part += dim + 2) {
            memcpy(part, own.mixed + row * dim, dim * 4);
            part[dim] = _mm512_reduce_add_ps(_mm512_load_ps(own.sums + row * 16));
            part[dim + 1] = own.tops[row];
        }
        return;
    }
    for (int64_t row = 0; row < rows; row++) {
        __m512 share = _mm512_set1_ps(1.0f / _mm512_reduce_add_ps(_mm512_load_ps(own.sums + row * 16)));
        uint16_t *out = job->out + ((const uint16_t *)own.queries[row] - job->q);
        for (int64_t d = 0; d < dim; d += 16)
            store16(out, d, 0, 0xffff, _mm512_mul_ps(_mm512_load_ps(own.mixed + row * dim + d), share));
    }
}

/* Parts weigh by how much their largest score is below the largest of all. A part that a query does not see has -inf, and
   weighs nothing; what is no number in one of them stays none. */
TARGET static void unite_item(void *data, int64_t item, char *scratch) {
    (void)scratch;
    const attention_job *job = data;
    const merger *own = job->mergers + item / job->kv_heads;
    const int64_t head = item % job->kv_heads, group = job->heads / job->kv_heads, width = job->dim + 2;
    const int64_t stride = job->kv_heads * QUERIES * group * width; /* from one slot to the next */
    for (int64_t row = 0; row < own->count * group; row++) {
        float *parts = job->parts + own->slot * stride + (head * QUERIES * group + row) * width;
        float top = -INFINITY, total = 0;
        for (int64_t slot = 0; slot < own->slots; slot++) top = fmaxf(top, parts[slot * stride + job->dim + 1]);
        for (int64_t slot = 0; slot < own->slots; slot++) {
            float *part = parts + slot * stride;
            part[job->dim + 1] = exp2f(part[job->dim + 1] - top); /* its weight from here on */
            total += part[job->dim] * part[job->dim + 1];
        }
        __m512 share = _mm512_set1_ps(1.0f / total); /* as where there is one part: the same numbers, to the last bit */
        uint16_t *out = job->out + ((own->row + row / group) * job->heads + head * group + row % group) * job->dim;
        for (int64_t d = 0; d < job->dim; d += 16) {
            __m512 mixed = _mm512_setzero_ps();
            for (int64_t slot = 0; slot < own->slots; slot++) {
                const float *part = parts + slot * stride;
                mixed = _mm512_fmadd_ps(_mm512_loadu_ps(part + d), _mm512_set1_ps(part[job->dim + 1]), mixed);
            }
            store16(out, d, 0, 0xffff, _mm512_mul_ps(mixed, share));
        }
    }
}

/* `pieces`: int64 [count, 7]; `mergers`: int64 [merged, 4]. `dim` is a multiple of 32. */
int parkway_attend(const uint16_t *q, const uint16_t *keys, const uint16_t *values, const int64_t *pieces, int64_t count,
                   const int64_t *tables, const int64_t *mergers, int64_t merged, float *parts, uint16_t *out, int64_t heads,
                   int64_t kv_heads, int64_t dim, int threads) {
    attention_job job = {q, keys, values, (const piece *)pieces, tables, out, heads, kv_heads, dim,
                         1.44269504f / sqrtf((float)dim), (const merger *)mergers, parts};
    if (parallel(attend_item, &job, count * kv_heads, threads, room_for(QUERIES * (heads / kv_heads), dim))) return -1;
    return merged ? parallel(unite_item, &job, merged * kv_heads, threads, 0) : 0;
}

/* Put the keys and values of `tokens` tokens, each `size` numbers, where `places` says; in k and v tokens are `k_stride` and
   `v_stride` apart. */
void parkway_write(const uint16_t *k, int64_t k_stride, const uint16_t *v, int64_t v_stride, const int64_t *places,
                   int64_t tokens, int64_t size, uint16_t *keys, uint16_t *values) {
    for (int64_t token = 0; token < tokens; token++) {
        memcpy(keys + places[token] * size, k + token * k_stride, size * 2);
        memcpy(values + places[token] * size, v + token * v_stride, size * 2);
    }
}
