/* One panel of a matrix times the tokens of an item of work, with tiles. A panel lies as the tiles want it: 16 times 4 bytes
   of 16 channels are one, whose rows are 256 bytes apart. Included once for each kind of number and of tiles, with

       NAME(of)                   the function's name
       TILE(operation)            the operation, of those in tiles.h
       DOT(sums, x, weights)      the one that multiplies
       FINISH(job, channel, row, sums)   what becomes of 16 sums; they lie in memory

   The tokens of one pass are the rows of two tiles; up to 16 are those of one, and then twice as many channels are taken at
   once, so that always four sums grow side by side: an instruction waits long for the result of the one before. */

/* Tiles. Two times two sums are of tokens 0 to 15 and 16 to 31; four in a row are all of tokens 0 to 15. */
#define S0 0
#define S1 1
#define S2 2
#define S3 3
#define X0 4
#define X1 5 /* in a row: weights, too */
#define W0 6
#define W1 7

#define START       \
    TILE(zero)(S0); \
    TILE(zero)(S1); \
    TILE(zero)(S2); \
    TILE(zero)(S3);
#define SOON(part) \
    for (int line = 4 * part; line < 4 * part + 4; line++) _mm_prefetch(soon + 16 * step + 64 * line, _MM_HINT_T1)

/* 17 to 32 tokens, 32 channels. */
TILE(target) static void NAME(square)(const linear_job *job, int64_t channel, int64_t row, int64_t rows, const char *soon, char *sums) {
    const int64_t stride = job->row_bytes;
    const char *x = job->rows + row * stride, *x1 = x + 16 * stride;
    const char *w = job->weight + channel / PANEL * PANEL * stride + channel % PANEL * 4;
    START
    for (int64_t step = 0; step < stride; step += 64, w += 64 * PANEL) {
        TILE(load)(W0, w, 4 * PANEL);
        TILE(load)(X0, x + step, stride);
        DOT(S0, X0, W0);
        SOON(0);
        TILE(load)(W1, w + 64, 4 * PANEL);
        DOT(S1, X0, W1);
        SOON(1);
        TILE(load)(X1, x1 + step, stride);
        DOT(S2, X1, W0);
        SOON(2);
        DOT(S3, X1, W1);
        SOON(3);
    }
    TILE(store)(S0, sums, 128);
    TILE(store)(S1, sums + 64, 128);
    TILE(store)(S2, sums + 16 * 128, 128);
    TILE(store)(S3, sums + 16 * 128 + 64, 128);
    for (int64_t r = 0; r < rows; r++, sums += 128) {
        FINISH(job, channel, row + r, sums);
        FINISH(job, channel + 16, row + r, sums + 64);
    }
}

/* 1 to 16 tokens, 64 channels. */
TILE(target) static void NAME(line)(const linear_job *job, int64_t channel, int64_t row, int64_t rows, const char *soon, char *sums) {
    const int64_t stride = job->row_bytes;
    const char *x = job->rows + row * stride, *w = job->weight + channel * stride;
    START
    for (int64_t step = 0; step < stride; step += 64, w += 64 * PANEL) {
        TILE(load)(X0, x + step, stride);
        TILE(load)(W0, w, 4 * PANEL);
        DOT(S0, X0, W0);
        SOON(0);
        TILE(load)(W1, w + 64, 4 * PANEL);
        DOT(S1, X0, W1);
        SOON(1);
        TILE(load)(X1, w + 128, 4 * PANEL);
        DOT(S2, X0, X1);
        SOON(2);
        TILE(load)(W0, w + 192, 4 * PANEL);
        DOT(S3, X0, W0);
        SOON(3);
    }
    TILE(store)(S0, sums, 256);
    TILE(store)(S1, sums + 64, 256);
    TILE(store)(S2, sums + 128, 256);
    TILE(store)(S3, sums + 192, 256);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t n = 0; n < PANEL; n += 16, sums += 64) FINISH(job, channel + n, row + r, sums);
}

/* The tokens `row` to `end` - 1; `sums` is room for 4 tiles. */
TILE(target) static void NAME(item)(const linear_job *job, int64_t panel, int64_t row, int64_t end, char *sums) {
    const int64_t channel = panel * PANEL;
    for (int64_t rows, shaped = 0, pass = 0; row < end; row += rows) {
        rows = end - row < 32 ? end - row : 32;
        if (rows != shaped) {
            tile_shapes shapes = shapes_for(rows);
            TILE(shape)(&shapes);
            shaped = rows;
        }
        if (rows <= 16)
            NAME(line)(job, channel, row, rows, soon(job, panel, pass++), sums);
        else /* of the last panel maybe only the first half is there */
            for (int64_t half = channel; half < channel + PANEL && half < job->channels; half += PANEL / 2)
                NAME(square)(job, half, row, rows, soon(job, panel, pass++), sums);
    }
    TILE(release)(); /* else the system keeps 8 KiB more at every switch of threads */
}

#undef S0
#undef S1
#undef S2
#undef S3
#undef X0
#undef X1
#undef W0
#undef W1
#undef START
#undef SOON
