/* One panel of a matrix times 1 to 6 tokens: `multiply_1` to `multiply_6`, with a suffix.

   A panel is 64 channels. In it, for each 4 bytes of a channel's weights, those of all 64 stand side by side: a register
   holds them for 16 channels, and the matrix is read from front to back. Included once for each kind of number, with

       NAME(rows)                the function's name
       SUM, ZERO                 the type of 16 sums, and none
       DOT(sums, weights, x)     sums + weights . x; 16 channels, of which `x` repeats the same 4 bytes
       FINISH(job, channel, row, sums 0 to 3)   no inline function: that would cost registers in the loop

   Every sum is a variable with a name of its own; see each.h. */

#include "each.h"

#define START(r)                                             \
    const char *x##r = job->rows + (row + r) * job->row_bytes; \
    SUM s##r##0 = ZERO, s##r##1 = ZERO, s##r##2 = ZERO, s##r##3 = ZERO;

#define STEP(r)                     \
    memcpy(&four, x##r + step, 4);  \
    x = _mm512_set1_epi32(four);    \
    s##r##0 = DOT(s##r##0, w0, x);  \
    s##r##1 = DOT(s##r##1, w1, x);  \
    s##r##2 = DOT(s##r##2, w2, x);  \
    s##r##3 = DOT(s##r##3, w3, x);

#define END(r) FINISH(job, channel, row + r, s##r##0, s##r##1, s##r##2, s##r##3);

#define MULTIPLY(ROWS, EACH)                                                                 \
    TARGET static void NAME(ROWS)(const linear_job *job, int64_t panel, int64_t row, const char *soon) { \
        const char *w = job->weight + panel * PANEL * job->row_bytes;                        \
        const int64_t channel = panel * PANEL;                                               \
        __m512i x;                                                                           \
        int32_t four;                                                                        \
        EACH(START)                                                                          \
        for (int64_t step = 0; step < job->row_bytes; step += 4, w += 4 * PANEL) {           \
            __m512i w0 = _mm512_load_si512(w), w1 = _mm512_load_si512(w + 64);               \
            __m512i w2 = _mm512_load_si512(w + 128), w3 = _mm512_load_si512(w + 192);        \
            _mm_prefetch(soon + 16 * step, _MM_HINT_T1);                                     \
            EACH(STEP)                                                                       \
        }                                                                                    \
        EACH(END)                                                                            \
    }

MULTIPLY(1, EACH_1)
MULTIPLY(2, EACH_2)
MULTIPLY(3, EACH_3)
MULTIPLY(4, EACH_4)
MULTIPLY(5, EACH_5)
MULTIPLY(6, EACH_6)

static void (*const NAME(by_rows)[])(const linear_job *, int64_t, int64_t, const char *) = {
    NAME(1), NAME(2), NAME(3), NAME(4), NAME(5), NAME(6),
};

#undef START
#undef STEP
#undef END
#undef MULTIPLY
