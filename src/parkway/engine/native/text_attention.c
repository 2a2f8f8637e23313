/* Attention within one text, where every token sees all of them: one head, in bfloat16, with sums in float32.

   Keys and values are turned into what the instructions want, as in attention.c: keys as pairs of dimensions, [dim / 2][tokens],
   values as pairs of tokens, [tokens / 2][dim]. Then for up to 6 queries at a time all scores are made, and their softmax, and
   what it mixes of the values. What is beyond the text may be
   anything in the keys, and is zero in the values. */

#include "text_attention.h"

#include <math.h>

#include "each.h"
#include "vectors.h"

#define KEYS 64 /* tokens whose scores are made at once: 6 x 4 sums, 4 keys and a query in 32 registers */
#define ROWS 6

typedef struct {
    const text_head *head;
    int64_t padded;   /* tokens, a multiple of KEYS */
    uint32_t *keys;   /* [dim / 2][padded] pairs of dimensions */
    uint32_t *values; /* [padded / 2][dim] pairs of tokens */
    float *scores;    /* [ROWS][padded] */
    uint32_t *shares; /* [ROWS][padded / 2] pairs of tokens: of each in the softmax, not yet divided by the sum */
} room;

static int64_t padded(int64_t tokens) { return (tokens + KEYS - 1) / KEYS * KEYS; }

size_t text_attention_room(int64_t tokens, int64_t dim) { return padded(tokens) * (2 * dim + 2 * dim + ROWS * 4 + ROWS * 2); }

static room room_in(const text_head *head, char *scratch) {
    room r = {.head = head, .padded = padded(head->tokens), .keys = (uint32_t *)scratch};
    r.values = r.keys + head->dim / 2 * r.padded;
    r.scores = (float *)(r.values + r.padded / 2 * head->dim);
    r.shares = (uint32_t *)(r.scores + ROWS * r.padded);
    return r;
}

TARGET static void gather_keys(const room *own) {
    const text_head *head = own->head;
    for (int64_t token = 0; token < head->tokens; token += 16) {
        const uint16_t *k = head->k + token * head->stride;
        if (head->tokens - token >= 16) {
            for (int64_t pair = 0; pair < head->dim / 2; pair += 16)
                transpose((const uint32_t *)k + pair, head->stride / 2, own->keys + pair * own->padded + token, own->padded);
            continue;
        }
        for (int64_t each = 0; each < head->tokens - token; each++, k += head->stride)
            for (int64_t pair = 0; pair < head->dim / 2; pair++)
                memcpy(own->keys + pair * own->padded + token + each, k + 2 * pair, 4);
    }
}

TARGET static void gather_values(const room *own) {
    const text_head *head = own->head;
    const __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37, 5,
                                         36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
    const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
    uint32_t *to = own->values;
    for (int64_t token = 0; token < head->tokens; token += 2) {
        const uint16_t *v = head->v + token * head->stride;
        for (int64_t d = 0; d < head->dim; d += 32, to += 32) {
            __m512i a = _mm512_loadu_si512(v + d);
            __m512i b = token + 1 < head->tokens ? _mm512_loadu_si512(v + head->stride + d) : _mm512_setzero_si512();
            _mm512_store_si512(to, _mm512_permutex2var_epi16(a, low, b));
            _mm512_store_si512(to + 16, _mm512_permutex2var_epi16(a, high, b));
        }
    }
}

/* The softmax of a query whose largest score, of 16 columns each, is `top`. Returns what its shares are to be multiplied with. */
TARGET static NOINLINE float weigh(const room *own, int64_t r, __m512 top) {
    const float *scores = own->scores + r * own->padded;
    uint32_t *shares = own->shares + r * (own->padded / 2);
    const int64_t tokens = own->head->tokens;
    const __m512 scale = _mm512_set1_ps(own->head->scale), peak = _mm512_set1_ps(_mm512_reduce_max_ps(top) * own->head->scale);
    __m512 sum = _mm512_setzero_ps();
    for (int64_t key = 0; key < tokens; key += 32) {
        __m512 p0 = exp2_rough_16(_mm512_fmsub_ps(_mm512_load_ps(scores + key), scale, peak));
        __m512 p1 = exp2_rough_16(_mm512_fmsub_ps(_mm512_load_ps(scores + key + 16), scale, peak));
        p0 = _mm512_maskz_mov_ps(first(tokens - key), p0), p1 = _mm512_maskz_mov_ps(first(tokens - key - 16), p1);
        sum = _mm512_add_ps(sum, _mm512_add_ps(p0, p1));
        _mm512_store_si512(shares + key / 2, (__m512i)_mm512_cvtne2ps_pbh(p1, p0));
    }
    return 1.0f / _mm512_reduce_add_ps(sum);
}

/* Queries `row` to `row` + ROWS - 1: `attend_1` to `attend_6`. Every sum is a variable with a name of its own; see each.h. */
#define DOT(sums, pairs, other) _mm512_dpbf16_ps(sums, (__m512bh)(pairs), (__m512bh)(other))
#define START(r)                                                               \
    const uint32_t *q##r = (const uint32_t *)(head->q + (row + r) * head->stride); \
    float *scores##r = own->scores + r * own->padded;                          \
    const uint32_t *shares##r = own->shares + r * (own->padded / 2);           \
    __m512 top##r = _mm512_set1_ps(-INFINITY), s##r##0, s##r##1, s##r##2, s##r##3;
#define ZERO(r) s##r##0 = s##r##1 = s##r##2 = s##r##3 = _mm512_setzero_ps();
#define SCORE(r)                            \
    x = _mm512_set1_epi32((int)q##r[pair]); \
    s##r##0 = DOT(s##r##0, a, x);           \
    s##r##1 = DOT(s##r##1, b, x);           \
    s##r##2 = DOT(s##r##2, c, x);           \
    s##r##3 = DOT(s##r##3, d, x);
#define KEEP(r)                                             \
    _mm512_store_ps(scores##r + key, s##r##0);              \
    _mm512_store_ps(scores##r + key + 16, s##r##1);         \
    _mm512_store_ps(scores##r + key + 32, s##r##2);         \
    _mm512_store_ps(scores##r + key + 48, s##r##3);         \
    top##r = _mm512_mask_max_ps(top##r, m0, top##r, s##r##0); \
    top##r = _mm512_mask_max_ps(top##r, m1, top##r, s##r##1); \
    top##r = _mm512_mask_max_ps(top##r, m2, top##r, s##r##2); \
    top##r = _mm512_mask_max_ps(top##r, m3, top##r, s##r##3);
#define WEIGH(r) factors[r] = weigh(own, r, top##r);
#define MIX(r)                                \
    x = _mm512_set1_epi32((int)shares##r[pair]); \
    s##r##0 = DOT(s##r##0, a, x);             \
    s##r##1 = DOT(s##r##1, b, x);
#define STORE(r)                                                                                                 \
    store16(head->out + (row + r) * head->out_stride, at, 0, 0xffff, _mm512_mul_ps(s##r##0, _mm512_set1_ps(factors[r]))); \
    store16(head->out + (row + r) * head->out_stride, at + 16, 0, 0xffff, _mm512_mul_ps(s##r##1, _mm512_set1_ps(factors[r])));

#define ATTEND(N, EACH)                                                                                          \
    TARGET static void attend_##N(const room *own, int64_t row) {                                                \
        const text_head *head = own->head;                                                                       \
        const int64_t tokens = head->tokens, dim = head->dim;                                                    \
        float factors[N];                                                                                        \
        __m512i x, a, b, c, d;                                                                                   \
        EACH(START)                                                                                              \
        for (int64_t key = 0; key < tokens; key += KEYS) {                                                       \
            const uint32_t *keys = own->keys + key;                                                              \
            const int64_t left = tokens - key;                                                                   \
            const __mmask16 m0 = first(left), m1 = first(left - 16), m2 = first(left - 32), m3 = first(left - 48); \
            EACH(ZERO)                                                                                           \
            for (int64_t pair = 0; pair < dim / 2; pair++, keys += own->padded) {                                \
                a = _mm512_load_si512(keys), b = _mm512_load_si512(keys + 16);                                   \
                c = _mm512_load_si512(keys + 32), d = _mm512_load_si512(keys + 48);                              \
                EACH(SCORE)                                                                                      \
            }                                                                                                    \
            EACH(KEEP)                                                                                           \
        }                                                                                                        \
        EACH(WEIGH)                                                                                              \
        for (int64_t at = 0; at < dim; at += 32) {                                                               \
            const uint32_t *values = own->values + at;                                                           \
            EACH(ZERO)                                                                                           \
            for (int64_t pair = 0; pair < (tokens + 1) / 2; pair++, values += dim) {                             \
                a = _mm512_load_si512(values), b = _mm512_load_si512(values + 16);                               \
                EACH(MIX)                                                                                        \
            }                                                                                                    \
            EACH(STORE)                                                                                          \
        }                                                                                                        \
    }

ATTEND(1, EACH_1)
ATTEND(2, EACH_2)
ATTEND(3, EACH_3)
ATTEND(4, EACH_4)
ATTEND(5, EACH_5)
ATTEND(6, EACH_6)

static void (*const attend_by_rows[])(const room *, int64_t) = {attend_1, attend_2, attend_3, attend_4, attend_5, attend_6};

void attend_text(const text_head *head, char *scratch) {
    room own = room_in(head, scratch);
    gather_keys(&own);
    gather_values(&own);
    for (int64_t row = 0, now; row < head->tokens; row += now) {
        int64_t left = head->tokens - row, passes = (left + ROWS - 1) / ROWS;
        now = (left + passes - 1) / passes;
        attend_by_rows[now - 1](&own, row);
    }
}
