/* Causal attention over a cache in pages, in bfloat16, with sums in float32.

   An item of work is one head of keys and values, up to 16 new tokens of one sequence, and some of the tokens that they
   see: all queries that read the same keys. What a query makes of several parts is united afterwards; where parts end
   depends on nothing but positions, so a query's result is the same whoever computes it. Two pages at a time scores are
   made, and the softmax goes on from the keys before (Milakov and Gimelshein, 2018, arXiv:1805.02867). Nothing is copied.

   In a page each head lies by itself, so that it is read from front to back: keys as pairs of dimensions of PAGE tokens,
   [dim / 2][PAGE][2], values as pairs of tokens, [PAGE / 2][dim][2]. That is how the instructions want them, and who writes
   a token once turns it instead of everybody who reads it. */

#include <math.h>
#include <string.h>

#include "each.h"
#include "threads.h"
#include "vectors.h"

#define PAGE 32    /* tokens */
#define KEYS 64    /* tokens of two pages, which are read at once */
#define QUERIES 16 /* tokens of one item */
#define WRITES 64  /* tokens of one item that writes: fewer are done sooner than a second thread wakes up */
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
    const uint16_t *keys, *values; /* [pages, kv_heads], each as said above */
    const piece *pieces;
    const int64_t *tables;
    uint16_t *out; /* [tokens, heads, dim] */
    int64_t heads, kv_heads, dim;
    float scale; /* of scores, times log2(e) */
    const merger *mergers;
    float *parts; /* [slots, kv_heads, QUERIES * heads / kv_heads, dim + 2]: mixed, the sum, the largest score */
    int64_t items, threads;
} attention_job;

/* What lies where of two pages, of which the second may be missing: then it is the first. */
typedef struct {
    const uint32_t *keys[2];   /* [dim / 2][PAGE] pairs of dimensions */
    const uint32_t *values[2]; /* [PAGE / 2][dim] pairs of tokens */
    int64_t pages;
} pages;

/* A thread's own memory. */
typedef struct {
    pages now, soon;  /* at hand, and next */
    float *mixed;     /* [rows][dim], not yet divided by the sum */
    float *sums;      /* [rows][16] */
    float *tops;      /* [rows] */
    const uint32_t **queries; /* [rows] */
} room;

static size_t room_for(int64_t rows, int64_t dim) {
    return rows * (dim * 4 + 64 + 4 + 8) + 64;
}

static room room_in(char *scratch, int64_t rows, int64_t dim) {
    room r;
    r.mixed = (float *)scratch;
    r.sums = r.mixed + rows * dim;
    r.queries = (const uint32_t **)(r.sums + rows * 16);
    r.tops = (float *)(r.queries + rows);
    return r;
}

static pages pages_of(const attention_job *job, const piece *own, int64_t head, int64_t start) {
    pages found;
    found.pages = own->end - start > PAGE ? 2 : 1;
    for (int64_t i = 0; i < 2; i++) {
        int64_t page = job->tables[own->table + start / PAGE + (i < found.pages ? i : 0)];
        int64_t place = (page * job->kv_heads + head) * PAGE * job->dim;
        found.keys[i] = (const uint32_t *)(job->keys + place);
        found.values[i] = (const uint32_t *)(job->values + place);
    }
    return found;
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
            __m512 shrink = exp2_rough_16(_mm512_set1_ps(before - top));
            for (int64_t d = 0; d < job->dim; d += 16)
                _mm512_store_ps(mixed + d, _mm512_mul_ps(_mm512_load_ps(mixed + d), shrink));
            _mm512_store_ps(sum, _mm512_mul_ps(_mm512_load_ps(sum), shrink));
        }
        own->tops[row] = before = top;
    }
    __m512 now = _mm512_set1_ps(before);
    __m512 p0 = _mm512_maskz_mov_ps(m0, exp2_rough_16(_mm512_sub_ps(s0, now)));
    __m512 p1 = _mm512_maskz_mov_ps(m1, exp2_rough_16(_mm512_sub_ps(s1, now)));
    __m512 p2 = _mm512_maskz_mov_ps(m2, exp2_rough_16(_mm512_sub_ps(s2, now)));
    __m512 p3 = _mm512_maskz_mov_ps(m3, exp2_rough_16(_mm512_sub_ps(s3, now)));
    __m512 more = _mm512_add_ps(_mm512_add_ps(p0, p1), _mm512_add_ps(p2, p3));
    _mm512_store_ps(sum, _mm512_add_ps(_mm512_load_ps(sum), more));
    _mm512_store_si512(weights, (__m512i)_mm512_cvtne2ps_pbh(p1, p0));
    _mm512_store_si512(weights + 16, (__m512i)_mm512_cvtne2ps_pbh(p3, p2));
}

/* Two lines of each of two pages are asked for early. */
INLINE void soon(const uint32_t *const *pages, int64_t at) {
    for (int64_t page = 0; page < 2; page++) {
        _mm_prefetch((const char *)(pages[page] + at), _MM_HINT_T0);
        _mm_prefetch((const char *)(pages[page] + at + 16), _MM_HINT_T0);
    }
}

/* Queries `row` to `row` + ROWS - 1 against the keys at hand, of which each sees the first `seen[i]` tokens: `attend_1` to
   `attend_6`. Every sum is a variable with a name of its own; see each.h. */
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
    x = _mm512_set1_epi32((int)weights[r][page * (PAGE / 2) + pair]); \
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
            const uint32_t *first = own->now.keys[0] + pair * PAGE, *second = own->now.keys[1] + pair * PAGE; \
            a = _mm512_load_si512(first), b = _mm512_load_si512(first + 16);                                  \
            c = _mm512_load_si512(second), d = _mm512_load_si512(second + 16);                                \
            soon(own->soon.keys, pair * PAGE);                                                                \
            EACH(SCORE)                                                                                       \
        }                                                                                                     \
        EACH(WEIGH)                                                                                           \
        for (int64_t at = 0; at < dim; at += 32) {                                                            \
            EACH(LOAD)                                                                                        \
            for (int64_t page = 0; page < own->now.pages; page++) {                                           \
                const uint32_t *values = own->now.values[page] + at;                                          \
                const uint32_t *next = own->soon.values[page] + at;                                           \
                for (int64_t pair = 0; pair < PAGE / 2; pair++, values += dim, next += dim) {                 \
                    a = _mm512_load_si512(values), b = _mm512_load_si512(values + 16);                        \
                    _mm_prefetch((const char *)next, _MM_HINT_T0);                                            \
                    _mm_prefetch((const char *)(next + 16), _MM_HINT_T0);                                     \
                    EACH(MIX)                                                                                 \
                }                                                                                             \
            }                                                                                                 \
            EACH(STORE)                                                                                       \
        }                                                                                                     \
    }

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
    const int64_t rows = own_piece->count * group;
    room own = room_in(scratch, QUERIES * group, dim);
    for (int64_t row = 0; row < rows; row++) {
        int64_t query = (own_piece->row + row / group) * job->heads + head * group + row % group;
        own.queries[row] = (const uint32_t *)(job->q + query * dim);
        own.tops[row] = -INFINITY;
    }
    memset(own.mixed, 0, rows * dim * 4);
    memset(own.sums, 0, rows * 64);
    const int64_t end = own_piece->end;
    /* What is probably this thread's next item. */
    const int64_t after = item + job->threads < job->items ? item + job->threads : item;
    const piece *next_piece = job->pieces + after / job->kv_heads;
    const pages next = pages_of(job, next_piece, after % job->kv_heads, next_piece->start);
    for (int64_t start = own_piece->start; start < end; start += KEYS) {
        own.now = pages_of(job, own_piece, head, start);
        own.soon = start + KEYS < end ? pages_of(job, own_piece, head, start + KEYS) : next;
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
                         1.44269504f / sqrtf((float)dim), (const merger *)mergers, parts, count * kv_heads, threads};
    if (parallel(attend_item, &job, count * kv_heads, threads, room_for(QUERIES * (heads / kv_heads), dim))) return -1;
    return merged ? parallel(unite_item, &job, merged * kv_heads, threads, 0) : 0;
}

typedef struct {
    const uint16_t *k, *v; /* tokens `k_stride` and `v_stride` apart, of each [kv_heads, dim] */
    int64_t k_stride, v_stride;
    const int64_t *places; /* [tokens] */
    int64_t tokens, kv_heads, dim;
    uint16_t *keys, *values; /* as an attention_job has them */
} write_job;

/* 16 tokens whose places follow one another, from a multiple of 16 on: turned in registers. */
TARGET static void write_16(const write_job *job, int64_t token, int64_t head, uint32_t *keys, uint32_t *values) {
    const uint16_t *k = job->k + token * job->k_stride + head * job->dim;
    const uint16_t *v = job->v + token * job->v_stride + head * job->dim;
    for (int64_t pair = 0; pair < job->dim / 2; pair += 16)
        transpose((const uint32_t *)k + pair, job->k_stride / 2, keys + pair * PAGE, PAGE);
    const __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37, 5,
                                         36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
    const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
    for (int64_t pair = 0; pair < 8; pair++, v += 2 * job->v_stride)
        for (int64_t d = 0; d < job->dim; d += 32, values += 32) {
            __m512i a = _mm512_loadu_si512(v + d), b = _mm512_loadu_si512(v + job->v_stride + d);
            _mm512_store_si512(values, _mm512_permutex2var_epi16(a, low, b));
            _mm512_store_si512(values + 16, _mm512_permutex2var_epi16(a, high, b));
        }
}

TARGET static void write_one(const write_job *job, int64_t token, int64_t head, uint32_t *keys, uint16_t *values) {
    const uint16_t *k = job->k + token * job->k_stride + head * job->dim;
    const uint16_t *v = job->v + token * job->v_stride + head * job->dim;
    for (int64_t pair = 0; pair < job->dim / 2; pair++) memcpy(keys + pair * PAGE, k + 2 * pair, 4);
    /* Only its own half of each pair: another thread may be writing the other one. */
    for (int64_t d = 0; d < job->dim; d++) values[2 * d] = v[d];
}

TARGET static void write_item(void *data, int64_t item, char *scratch) {
    (void)scratch;
    const write_job *job = data;
    const int64_t end = (item + 1) * WRITES < job->tokens ? (item + 1) * WRITES : job->tokens;
    for (int64_t token = item * WRITES, count; token < end; token += count) {
        const int64_t place = job->places[token], within = place % PAGE;
        const int64_t last = token + 15;
        count = within % 16 == 0 && last < end && job->places[last] == place + 15 ? 16 : 1;
        for (int64_t head = 0; head < job->kv_heads; head++) {
            const int64_t own = (place / PAGE * job->kv_heads + head) * PAGE * job->dim;
            uint32_t *keys = (uint32_t *)(job->keys + own) + within;
            uint16_t *values = job->values + own + within / 2 * 2 * job->dim + within % 2;
            if (count == 16)
                write_16(job, token, head, keys, (uint32_t *)values);
            else
                write_one(job, token, head, keys, values);
        }
    }
}

/* Put keys and values of `tokens` tokens where `places` says, each place once; in k and v tokens are `k_stride` and
   `v_stride` apart, and lie [kv_heads, dim]. `dim` is a multiple of 32. */
int parkway_write(const uint16_t *k, int64_t k_stride, const uint16_t *v, int64_t v_stride, const int64_t *places,
                  int64_t tokens, int64_t kv_heads, int64_t dim, uint16_t *keys, uint16_t *values, int threads) {
    write_job job = {k, v, k_stride, v_stride, places, tokens, kv_heads, dim, keys, values};
    return parallel(write_item, &job, (tokens + WRITES - 1) / WRITES, threads, 0);
}
