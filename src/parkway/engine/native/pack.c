/* Matrices brought into the panels that panel.h reads: for each 64 channels, their weights side by side, 4 bytes of each. */

#include <string.h>

#include "threads.h"
#include "vectors.h"

#define PANEL 64

typedef struct {
    const char *const *rows; /* [channels], each [inputs] */
    int64_t channels, inputs;
    int wide; /* float32, or bfloat16 */
    int64_t row_bytes; /* of a packed row */
    char *out;         /* [panels, row_bytes / 4, PANEL, 4] */
    float *scales;     /* [channels]; NULL packs bfloat16 as it is */
} pack_job;

/* 64 rows of `row_bytes` become one panel. */
TARGET static void interleave(const char *from, int64_t row_bytes, char *to) {
    const int64_t steps = row_bytes / 4;
    int64_t step = 0;
    for (; step + 16 <= steps; step += 16)
        for (int64_t channel = 0; channel < PANEL; channel += 16)
            transpose((const uint32_t *)(from + channel * row_bytes) + step, steps,
                      (uint32_t *)to + step * PANEL + channel, PANEL);
    for (; step < steps; step++)
        for (int64_t channel = 0; channel < PANEL; channel++)
            memcpy(to + (step * PANEL + channel) * 4, from + channel * row_bytes + step * 4, 4);
}

/* One row in 8 bits, 128 added; what it is to be multiplied with is returned. */
TARGET static float round_weights(const char *row, int64_t inputs, int wide, char *to, int64_t padded) {
    float peak = largest_of(row, inputs, wide);
    __m512 factor = _mm512_set1_ps(peak > 0 ? 127.0f / peak : 0.0f);
    for (int64_t i = 0; i < padded; i += 16) {
        __m512i q = _mm512_cvtps_epi32(_mm512_mul_ps(load16(row, i, wide, first(inputs - i)), factor));
        __m128i bytes = _mm512_cvtsepi32_epi8(q);
        _mm_storeu_si128((__m128i *)(to + i), _mm_xor_si128(bytes, _mm_set1_epi8((char)0x80)));
    }
    return peak / 127.0f;
}

TARGET static void pack_panel(void *data, int64_t panel, char *scratch) {
    const pack_job *job = data;
    int64_t there = job->channels - panel * PANEL;
    if (there > PANEL) there = PANEL;
    memset(scratch + there * job->row_bytes, 0, (PANEL - there) * job->row_bytes);
    for (int64_t channel = 0; channel < there; channel++) {
        const char *row = job->rows[panel * PANEL + channel];
        char *to = scratch + channel * job->row_bytes;
        if (job->scales)
            job->scales[panel * PANEL + channel] = round_weights(row, job->inputs, job->wide, to, job->row_bytes);
        else
            memcpy(to, row, job->row_bytes);
    }
    interleave(scratch, job->row_bytes, job->out + panel * PANEL * job->row_bytes);
}

static int pack_all(pack_job *job, int threads) {
    return parallel(pack_panel, job, (job->channels + PANEL - 1) / PANEL, threads, PANEL * job->row_bytes);
}

/* bfloat16, `inputs` even. */
int parkway_pack_bfloat16(const char *const *rows, int64_t channels, int64_t inputs, char *out, int threads) {
    pack_job job = {rows, channels, inputs, 0, 2 * inputs, out, NULL};
    return pack_all(&job, threads);
}

/* To 8 bits, each row `padded` long in the panels, `padded` being a multiple of 64. */
int parkway_pack_int8(const char *const *rows, int64_t channels, int64_t inputs, int wide, int64_t padded, char *out,
                      float *scales, int threads) {
    pack_job job = {rows, channels, inputs, wide, padded, out, scales};
    return pack_all(&job, threads);
}
