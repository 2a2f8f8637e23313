/* bfloat16 and float32 in registers of 16. */

#ifndef PARKWAY_VECTORS_H
#define PARKWAY_VECTORS_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16")))
#define NOINLINE __attribute__((noinline))
#define INLINE static inline __attribute__((always_inline)) TARGET

/* The first `n` of 16; n may be negative. */
INLINE __mmask16 first(int64_t n) { return n >= 16 ? 0xffff : n <= 0 ? 0 : (__mmask16)((1u << n) - 1); }

/* 16 numbers from the `i`-th on, of float32 (`wide`) or bfloat16. */
INLINE __m512 load16(const void *at, int64_t i, int wide, __mmask16 m) {
    if (wide) return _mm512_maskz_loadu_ps(m, (const float *)at + i);
    __m256i halves = _mm256_maskz_loadu_epi16(m, (const uint16_t *)at + i);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}

INLINE void store16(void *at, int64_t i, int wide, __mmask16 m, __m512 x) {
    if (wide)
        _mm512_mask_storeu_ps((float *)at + i, m, x);
    else
        _mm256_mask_storeu_epi16((uint16_t *)at + i, m, (__m256i)_mm512_cvtneps_pbh(x));
}

/* 2 to the power of x, to 1e-4 of it, for what is rounded to bfloat16 afterwards. What is no number stays none. */
INLINE __m512 exp2_rough_16(__m512 x) {
    __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 f = _mm512_sub_ps(x, whole);
    __m512 y = _mm512_fmadd_ps(_mm512_set1_ps(9.6181291076284772e-3f), f, _mm512_set1_ps(5.5504108664821580e-2f)); /* Taylor: */
    y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(2.4022650695910072e-1f)); /* ln(2)^n / n! */
    y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(6.9314718055994531e-1f));
    y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(y, whole);
}

/* x times the share of a normal distribution that is below x, to 7e-5. The share is 1/2 + x p(x^2) for x from -4.2 to 4.2, by
   fitting p so that the largest error of the product is the smallest; what is beyond is taken for the end of it. */
INLINE __m512 gelu_16(__m512 x) {
    static const float p[] = {3.98508757e-1f,  -6.55994192e-2f, 9.33748949e-3f, -9.60769248e-4f,
                              6.82673781e-5f, -3.13995974e-6f, 8.33012734e-8f, -9.61358659e-10f};
    __m512 end = _mm512_set1_ps(4.2f);
    __m512 u = _mm512_max_ps(_mm512_sub_ps(_mm512_setzero_ps(), end), _mm512_min_ps(end, x)), square = _mm512_mul_ps(u, u);
    __m512 y = _mm512_set1_ps(p[7]);
    for (int i = 6; i >= 0; i--) y = _mm512_fmadd_ps(y, square, _mm512_set1_ps(p[i]));
    return _mm512_mul_ps(x, _mm512_fmadd_ps(u, y, _mm512_set1_ps(0.5f)));
}

/* The largest magnitude of `n` numbers. Compared as integers, what is no number is the largest of all. */
INLINE float largest_of(const void *x, int64_t n, int wide) {
    __m512i largest = _mm512_setzero_si512();
    for (int64_t i = 0; i < n; i += 16) {
        __m512i bits = _mm512_castps_si512(load16(x, i, wide, first(n - i)));
        largest = _mm512_max_epu32(largest, _mm512_and_si512(bits, _mm512_set1_epi32(0x7fffffff)));
    }
    uint32_t top = _mm512_reduce_max_epu32(largest);
    float peak;
    memcpy(&peak, &top, 4);
    return peak;
}

/* 16 x 16 numbers of 32 bits: rows `stride` apart become columns, `to_stride` apart. */
INLINE void transpose(const uint32_t *from, int64_t stride, uint32_t *to, int64_t to_stride) {
    __m512i a[16], b[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) a[i] = _mm512_loadu_si512(from + i * stride);
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        b[2 * i] = _mm512_unpacklo_epi32(a[2 * i], a[2 * i + 1]);
        b[2 * i + 1] = _mm512_unpackhi_epi32(a[2 * i], a[2 * i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) { /* a[4 i + j]: column j of each quarter, rows 4 i to 4 i + 3 */
        a[4 * i + 0] = _mm512_unpacklo_epi64(b[4 * i + 0], b[4 * i + 2]);
        a[4 * i + 1] = _mm512_unpackhi_epi64(b[4 * i + 0], b[4 * i + 2]);
        a[4 * i + 2] = _mm512_unpacklo_epi64(b[4 * i + 1], b[4 * i + 3]);
        a[4 * i + 3] = _mm512_unpackhi_epi64(b[4 * i + 1], b[4 * i + 3]);
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        __m512i low = _mm512_shuffle_i32x4(a[j], a[4 + j], 0x88), low2 = _mm512_shuffle_i32x4(a[8 + j], a[12 + j], 0x88);
        __m512i high = _mm512_shuffle_i32x4(a[j], a[4 + j], 0xdd), high2 = _mm512_shuffle_i32x4(a[8 + j], a[12 + j], 0xdd);
        _mm512_storeu_si512(to + (j + 0) * to_stride, _mm512_shuffle_i32x4(low, low2, 0x88));
        _mm512_storeu_si512(to + (j + 4) * to_stride, _mm512_shuffle_i32x4(high, high2, 0x88));
        _mm512_storeu_si512(to + (j + 8) * to_stride, _mm512_shuffle_i32x4(low, low2, 0xdd));
        _mm512_storeu_si512(to + (j + 12) * to_stride, _mm512_shuffle_i32x4(high, high2, 0xdd));
    }
}

#endif
