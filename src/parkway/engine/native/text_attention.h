/* Attention within one text; see text_attention.c. */

#ifndef PARKWAY_TEXT_ATTENTION_H
#define PARKWAY_TEXT_ATTENTION_H

#include <stddef.h>
#include <stdint.h>

/* One head of one text, in bfloat16. `dim` is a multiple of 32. */
typedef struct {
    const uint16_t *q, *k, *v; /* the first token's; `stride` numbers further is the next one's */
    uint16_t *out;             /* likewise, `out_stride` apart */
    int64_t stride, out_stride, tokens, dim;
    float scale; /* of scores, times log2(e) */
} text_head;

/* Bytes of scratch for texts of up to `tokens` tokens. */
size_t text_attention_room(int64_t tokens, int64_t dim);

/* Every token attends to all of them. */
void attend_text(const text_head *head, char *scratch);

#endif
