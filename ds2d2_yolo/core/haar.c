/*
 * The Haar energies of student - teacher and their gradient, each in one pass over the features.
 *
 * Planes are the images' channels, (2 h) x (2 w), one after the other; `weight` is h x w per image; `scale` holds a
 * factor per channel for the difference, or is NULL. `native.py` builds this.
 */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

typedef ptrdiff_t len;

/* Pairs of rows that are asked for ahead of their use; past the end nothing is read. One core alone waits otherwise. */
#define AHEAD 6
#if defined(__GNUC__)
#define PREFETCH(row, w) for (len at_ = 0; at_ < 4 * (w); at_ += 16) __builtin_prefetch((row) + 4 * (w) * AHEAD + at_)
#else
#define PREFETCH(row, w)
#endif

/* One copy for each kind of processor, chosen when the library is loaded: a file in a shared home serves them all. */
#if defined(__x86_64__) && defined(__linux__) && !defined(PLAIN)
#define FOR_EACH_PROCESSOR __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FOR_EACH_PROCESSOR
#endif

/* out = the sums of weight * LL^2 and of weight * (LH^2 + HL^2 + HH^2). Returns 0, or 1 without memory. */
FOR_EACH_PROCESSOR
int ds2d2_energy(const float *restrict student, const float *restrict teacher, const float *restrict weight,
                 const float *restrict scale, len planes, len channels, len h, len w,
                 double *restrict out)
{
    double low = 0, high = 0;
    /* a sum for each column: a plane's height of terms each, so that float is enough, and vectors need no order */
    float *restrict lows = malloc(2 * (size_t)w * sizeof(float));
    if (!lows)
        return 1;
    float *restrict highs = lows + w;
    for (len plane = 0; plane < planes; plane++) {
        const float *map = weight + plane / channels * h * w;
        memset(lows, 0, 2 * (size_t)w * sizeof(float));
        for (len i = 0; i < h; i++) {
            len at = (plane * h + i) * 4 * w;
            const float *restrict s = student + at, *restrict t = teacher + at;
            const float *restrict m = map + i * w;
            PREFETCH(s, w);
            PREFETCH(t, w);
            for (len j = 0; j < w; j++) {
                /* differences first: features with an offset would cancel in the bands */
                float a = s[2 * j] - t[2 * j], b = s[2 * j + 1] - t[2 * j + 1];
                float c = s[2 * w + 2 * j] - t[2 * w + 2 * j], d = s[2 * w + 2 * j + 1] - t[2 * w + 2 * j + 1];
                float ll = (a + b) + (c + d), lh = (a + b) - (c + d), hl = (a - b) + (c - d), hh = (a - b) - (c - d);
                lows[j] += m[j] * (ll * ll);
                highs[j] += m[j] * (lh * lh + hl * hl + hh * hh);
            }
        }
        double of_low = 0, of_high = 0, k = scale ? scale[plane % channels] : 1;
        for (len j = 0; j < w; j++) {
            of_low += lows[j];
            of_high += highs[j];
        }
        low += k * k * of_low;
        high += k * k * of_high;
    }
    free(lows);
    out[0] = low / 4;
    out[1] = high / 4;
    return 0;
}

/* Write past the cache where that can be done: it need not be filled with what is overwritten. A multiple of 4. */
static void store(float *restrict to, const float *restrict from, len count)
{
#ifdef __SSE2__
    if ((size_t)to % 16 == 0) {
        for (len k = 0; k < count; k += 4)
            _mm_stream_ps(to + k, _mm_loadu_ps(from + k));
        return;
    }
#endif
    memcpy(to, from, (size_t)count * sizeof(float));
}

/* gradient = weight * (of_low * the block's mean + of_high * what it leaves), of half the energies. As above. */
FOR_EACH_PROCESSOR
int ds2d2_gradient(const float *restrict student, const float *restrict teacher, const float *restrict weight,
                    const float *restrict scale, len planes, len channels, len h, len w,
                    float of_low, float of_high, float *restrict gradient)
{
    float *restrict rows = malloc(4 * (size_t)w * sizeof(float));
    if (!rows)
        return 1;
    for (len plane = 0; plane < planes; plane++) {
        const float *map = weight + plane / channels * h * w;
        float k = scale ? scale[plane % channels] * scale[plane % channels] : 1;
        for (len i = 0; i < h; i++) {
            len at = (plane * h + i) * 4 * w;
            const float *restrict s = student + at, *restrict t = teacher + at;
            const float *restrict m = map + i * w;
            PREFETCH(s, w);
            PREFETCH(t, w);
            for (len j = 0; j < w; j++) {
                float a = s[2 * j] - t[2 * j], b = s[2 * j + 1] - t[2 * j + 1];
                float c = s[2 * w + 2 * j] - t[2 * w + 2 * j], d = s[2 * w + 2 * j + 1] - t[2 * w + 2 * j + 1];
                float mean = 0.25f * ((a + b) + (c + d));
                float lift = k * m[j] * of_low * mean, factor = k * m[j] * of_high;
                rows[2 * j] = factor * (a - mean) + lift;
                rows[2 * j + 1] = factor * (b - mean) + lift;
                rows[2 * w + 2 * j] = factor * (c - mean) + lift;
                rows[2 * w + 2 * j + 1] = factor * (d - mean) + lift;
            }
            store(gradient + at, rows, 4 * w);
        }
    }
    free(rows);
#ifdef __SSE2__
    _mm_sfence();
#endif
    return 0;
}
