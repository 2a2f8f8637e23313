/* Whether tiles can be multiplied here: the processor has to know them, the system to permit them, and what comes out to be
   right. */

#define _GNU_SOURCE

#include <cpuid.h>
#include <math.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "linear.h"
#include "tiles.h"

enum { INT8 = 1, BFLOAT16 = 2 };

#if REAL_TILES

#define TOKENS 37 /* a pass with all rows of two tiles, and one with 5 of one */
#define INPUTS 192
#define CHANNELS 70
#define PANELS 2

/* Those whose tiles the processor has, and the system saves when it switches threads. */
static int claimed(void) {
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c >> 27 & 1)) return 0;
    unsigned low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    if ((low >> 17 & 3) != 3) return 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d >> 24 & 1)) return 0;
    int found = (d >> 25 & 1 ? INT8 : 0) | (d >> 22 & 1 ? BFLOAT16 : 0);
    /* 8 tiles of 16 rows of 64 bytes; what else could be shaped would be refused, and that ends the process. */
    if (!__get_cpuid_count(0x1d, 1, &a, &b, &c, &d) || (b & 0xffff) < 64 || b >> 16 < 8 || (c & 0xffff) < 16) return 0;
    return found;
}

/* Linux gives them to those who ask, once for the whole process. */
static int permitted(void) { return syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18) == 0; }

static uint32_t next(uint32_t *seed) { return (*seed = *seed * 1664525 + 1013904223) >> 8; }

static int multiplies_int8(void) {
    _Alignas(64) static char weight[PANELS * 64 * INPUTS];
    static float x[TOKENS * INPUTS], scales[CHANNELS], out[2][TOKENS * CHANNELS];
    static char rows[TOKENS * INPUTS];
    static float row_scales[TOKENS];
    static int32_t row_sums[TOKENS];
    uint32_t seed = 1;
    for (size_t i = 0; i < sizeof weight; i++) weight[i] = (char)(next(&seed) % 255 + 1);
    for (int i = 0; i < TOKENS * INPUTS; i++) x[i] = (float)(next(&seed) % 2001) - 1000;
    for (int i = 0; i < CHANNELS; i++) scales[i] = 1;
    for (int i = 0; i < 2; i++)
        if (parkway_linear_int8(x, TOKENS, INPUTS, 1, weight, INPUTS, scales, NULL, CHANNELS, out[i], rows, row_scales,
                                row_sums, i ? TILES_REAL : TILES_NONE, 1))
            return 0;
    return !memcmp(out[0], out[1], sizeof out[0]);
}

static float wide(uint16_t bfloat16) {
    uint32_t bits = (uint32_t)bfloat16 << 16;
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

static int multiplies_bfloat16(void) {
    _Alignas(64) static uint16_t weight[PANELS * 64 * INPUTS];
    static uint16_t x[TOKENS * INPUTS], out[2][TOKENS * CHANNELS];
    uint32_t seed = 1;
    /* Of either sign, from 1/4 to 1. */
    for (int i = 0; i < PANELS * 64 * INPUTS; i++) weight[i] = 0x3e80 | (next(&seed) & 0x80ff);
    for (int i = 0; i < TOKENS * INPUTS; i++) x[i] = 0x3e80 | (next(&seed) & 0x80ff);
    for (int i = 0; i < 2; i++)
        if (parkway_linear_bfloat16(x, TOKENS, INPUTS, (const char *)weight, NULL, CHANNELS, out[i],
                                    i ? TILES_REAL : TILES_EMULATED, 1))
            return 0;
    for (int i = 0; i < TOKENS * CHANNELS; i++) {
        float expected = wide(out[0][i]);
        if (!(fabsf(wide(out[1][i]) - expected) <= 0.01f * fabsf(expected) + 1e-3f)) return 0;
    }
    return 1;
}

/* Bits: INT8 and BFLOAT16 for what works, and the same 2 bits higher for what the processor claims. Called once. */
int parkway_tiles(void) {
    int found = claimed(), works = 0;
    if (found && permitted()) {
        if (found & INT8 && multiplies_int8()) works |= INT8;
        if (found & BFLOAT16 && multiplies_bfloat16()) works |= BFLOAT16;
    }
    return works | found << 2;
}

#else

int parkway_tiles(void) { return 0; }

#endif
