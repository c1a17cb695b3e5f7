/* 3x3 convolutions with padding 1 by Winograd's F(4x4, 3x3) (Lavin & Gray 2016, section 4), and their weight gradient.

   For each tile of 4x4 output pixels
       Y = A^T [ (G g G^T) * (B^T d B) ] A,    d: the 6x6 input pixels of the tile, g: the 3x3 weights,
   where * multiplies each of the 36 places by itself: over the channels that is 36 matrix products. They take 36
   multiplications for 16 pixels, not 144.

   Images are [B, H, W, C] (channels_last); pixels outside of them are 0. Numbers of channels are multiples of
   LANES * PANEL, and the compiler is told PANEL. */

#include <stdlib.h>

/* Of the multiplications: ROWS rows at a time of TILES tiles, ROWS_W for the weight gradient, whose tiles and their
   transformed gradients have BLOCK floats together: what fits a core's cache. */
enum { LANES = 8, ROWS = 6, TILES = ROWS, ROWS_W = 8, BLOCK = 64 * 1024 };

typedef long i64;
typedef float lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

#define AT(p) (*(lanes *)(p))
#define READ(p) (*(const lanes *)(p))

/* A batch of images, and its tiles. */
typedef struct { i64 batch, height, width, channels; } shape;

static i64 tiles_in(shape s) { return s.batch * ((s.height + 3) / 4) * ((s.width + 3) / 4); }

/* The first pixel of tile p. */
typedef struct { i64 image, y, x; } place;

static place tile(shape s, i64 p) {
    i64 th = (s.height + 3) / 4, tw = (s.width + 3) / 4;
    place at = { p / (th * tw), p / tw % th * 4, p % tw * 4 };
    return at;
}

/* B^T d: 6 values, `s` apart, to 6, `t` apart. */
static inline void b_t(const lanes *d, int s, lanes *o, int t) {
    lanes p = d[4*s] - 4*d[2*s], q = d[3*s] - 4*d[s], r = d[4*s] - d[2*s], u = 2*(d[3*s] - d[s]);
    o[0] = 4*d[0] - 5*d[2*s] + d[4*s];
    o[t] = p + q;
    o[2*t] = p - q;
    o[3*t] = r + u;
    o[4*t] = r - u;
    o[5*t] = 4*d[s] - 5*d[3*s] + d[5*s];
}

/* A^T m: 6 values to 4. */
static inline void a_t(const lanes *m, int s, lanes *o, int t) {
    lanes p = m[s] + m[2*s], q = m[s] - m[2*s], r = m[3*s] + m[4*s], u = m[3*s] - m[4*s];
    o[0] = m[0] + p + r;
    o[t] = q + 2*u;
    o[2*t] = p + 4*r;
    o[3*t] = q + 8*u + m[5*s];
}

/* A y: 4 values to 6, the adjoint of a_t. */
static inline void a(const lanes *y, int s, lanes *o, int t) {
    lanes p = y[0] + y[2*s], q = y[s] + y[3*s], r = y[0] + 4*y[2*s], u = 2*y[s] + 8*y[3*s];
    o[0] = y[0];
    o[t] = p + q;
    o[2*t] = p - q;
    o[3*t] = r + u;
    o[4*t] = r - u;
    o[5*t] = y[3*s];
}

/* G g: 3 values to 6. */
static inline void g(const lanes *w, int s, lanes *o, int t) {
    lanes p = (w[0] + w[2*s]) * (-1.0f/6), q = w[s] * (-1.0f/6);
    lanes r = w[0] * (1.0f/24) + w[2*s] * (1.0f/6), u = w[s] * (1.0f/12);
    o[0] = w[0] * 0.25f;
    o[t] = p + q;
    o[2*t] = p - q;
    o[3*t] = r + u;
    o[4*t] = r - u;
    o[5*t] = w[2*s];
}

/* G^T u: 6 values to 3, the adjoint of g. */
static inline void g_t(const lanes *v, int s, lanes *o, int t) {
    lanes p = (v[s] + v[2*s]) * (-1.0f/6), r = v[3*s] + v[4*s];
    o[0] = v[0] * 0.25f + p + r * (1.0f/24);
    o[t] = (v[s] - v[2*s]) * (-1.0f/6) + (v[3*s] - v[4*s]) * (1.0f/12);
    o[2*t] = p + r * (1.0f/6) + v[5*s];
}

/* B^T d B of one tile, for all channels; place k goes to `v + k*plane`. */
static void transform_input(const float *x, shape s, place at, float *v, i64 plane) {
    i64 left = at.x == 0, right = s.width + 1 - at.x;
    for (i64 c = 0; c < s.channels; c += LANES) {
        lanes d[36], e[36];
        for (int i = 0; i < 6; i++) {
            i64 y = at.y + i - 1;
            const float *row = x + ((at.image*s.height + y)*s.width + at.x - 1)*s.channels + c;
            if (y < 0 || y >= s.height) for (int j = 0; j < 6; j++) d[6*i + j] = (lanes){0};
            else for (int j = 0; j < 6; j++) d[6*i + j] = j < left || j >= right ? (lanes){0} : READ(row + j*s.channels);
        }
        for (int j = 0; j < 6; j++) b_t(d + j, 6, e + j, 6);
        for (int i = 0; i < 6; i++) b_t(e + 6*i, 1, d + 6*i, 1);
        for (int k = 0; k < 36; k++) AT(v + k*plane + c) = d[k];
    }
}

/* A^T m A + bias of one tile. */
static void transform_output(const float *m, i64 plane, const float *bias, float *y, shape s, place at) {
    for (i64 c = 0; c < s.channels; c += LANES) {
        lanes d[36], e[24], o[16], b = bias ? READ(bias + c) : (lanes){0};
        for (int k = 0; k < 36; k++) d[k] = READ(m + k*plane + c);
        for (int j = 0; j < 6; j++) a_t(d + j, 6, e + j, 6);
        for (int i = 0; i < 4; i++) a_t(e + 6*i, 1, o + 4*i, 1);
        for (int i = 0; i < 4 && at.y + i < s.height; i++) for (int j = 0; j < 4 && at.x + j < s.width; j++)
            AT(y + ((at.image*s.height + at.y + i)*s.width + at.x + j)*s.channels + c) = o[4*i + j] + b;
    }
}

/* A y A^T of one tile, the adjoint of transform_output. */
static void output_adjoint(const float *y, shape s, place at, float *m, i64 plane) {
    for (i64 c = 0; c < s.channels; c += LANES) {
        lanes d[16], e[24], o[36];
        for (int i = 0; i < 4; i++) for (int j = 0; j < 4; j++) {
            int inside = at.y + i < s.height && at.x + j < s.width;
            i64 pixel = (at.image*s.height + at.y + i)*s.width + at.x + j;
            d[4*i + j] = inside ? READ(y + pixel*s.channels + c) : (lanes){0};
        }
        for (int j = 0; j < 4; j++) a(d + j, 4, e + j, 4);
        for (int i = 0; i < 6; i++) a(e + 4*i, 1, o + 6*i, 1);
        for (int k = 0; k < 36; k++) AT(m + k*plane + c) = o[k];
    }
}

/* m[ROWS, out] = v[ROWS, in] u[in, out], with u in panels of LANES * PANEL columns. */
static void multiply(const float *v, const float *u, float *m, i64 in, i64 out) {
    for (i64 o = 0; o < out; o += LANES * PANEL) {
        lanes sum[ROWS][PANEL] = {0};
        for (i64 n = 0; n < in; n++, u += LANES * PANEL) for (int r = 0; r < ROWS; r++) for (int q = 0; q < PANEL; q++)
            sum[r][q] += v[r*in + n] * READ(u + q*LANES);
        for (int r = 0; r < ROWS; r++) for (int q = 0; q < PANEL; q++) AT(m + r*out + o + q*LANES) = sum[r][q];
    }
}

/* y[B, H, W, out] = x[B, H, W, in] * w + bias, with the weights as transform_weight gives them. Returns 0, or 1 where
   there is no memory. A thread takes a few tiles at a time through all three stages, so that they stay in its cache. */
int convolve(const float *x, const float *u, const float *bias, float *y,
             i64 batch, i64 height, i64 width, i64 in, i64 out, int threads) {
    shape from = { batch, height, width, in }, to = { batch, height, width, out };
    i64 tiles = tiles_in(from);
    int failed = 0;
    #pragma omp parallel num_threads(threads)
    {
        float *v = calloc(36 * TILES * (in + out), sizeof(float)), *m = v + 36 * TILES * in;
        if (!v) {
            #pragma omp atomic write
            failed = 1;
        }
        #pragma omp for schedule(static)
        for (i64 first = 0; first < tiles; first += TILES) if (v) {
            i64 count = tiles - first < TILES ? tiles - first : TILES;
            for (i64 p = 0; p < count; p++) transform_input(x, from, tile(from, first + p), v + p*in, TILES * in);
            for (int k = 0; k < 36; k++) for (i64 p = 0; p < count; p += ROWS)
                multiply(v + (k*TILES + p)*in, u + k*in*out, m + (k*TILES + p)*out, in, out);
            for (i64 p = 0; p < count; p++) transform_output(m + p*out, TILES * out, bias, y, to, tile(to, first + p));
        }
        free(v);
    }
    return failed;
}

/* sum[ROWS_W, LANES * PANEL] += v[count, in]^T m[count, out], for the first ROWS_W of `in` and a panel of `out`. */
static void multiply_adjoint(const float *v, const float *m, float *sum, i64 count, i64 in, i64 out) {
    lanes s[ROWS_W][PANEL];
    for (int r = 0; r < ROWS_W; r++) for (int q = 0; q < PANEL; q++) s[r][q] = READ(sum + r*out + q*LANES);
    for (i64 p = 0; p < count; p++, v += in, m += out) for (int r = 0; r < ROWS_W; r++) for (int q = 0; q < PANEL; q++)
        s[r][q] += v[r] * READ(m + q*LANES);
    for (int r = 0; r < ROWS_W; r++) for (int q = 0; q < PANEL; q++) AT(sum + r*out + q*LANES) = s[r][q];
}

/* The gradient of `convolve` by its weights: w[out, in, 3, 3] of x[B, H, W, in] and dy[B, H, W, out]. Returns 0, or 1
   where there is no memory. Each thread sums over tiles of its own; the sums are added in the order of the threads, so
   that the result is always the same. */
int weight_gradient(const float *x, const float *dy, float *w,
                    i64 batch, i64 height, i64 width, i64 in, i64 out, int threads) {
    shape xs = { batch, height, width, in }, ys = { batch, height, width, out };
    i64 tiles = tiles_in(xs), size = 36 * in * out, some = BLOCK / (36 * (in + out));
    some = some < 6 ? 6 : some > tiles ? tiles : some;
    float *sums = calloc(threads * (size + 36 * some * (in + out)), sizeof(float));
    if (!sums) return 1;
    #pragma omp parallel for schedule(static) num_threads(threads)
    for (int thread = 0; thread < threads; thread++) {
        float *sum = sums + thread * size;
        float *v = sums + threads * size + thread * 36 * some * (in + out), *m = v + 36 * some * in;
        for (i64 first = tiles * thread / threads, end = tiles * (thread + 1) / threads; first < end; first += some) {
            i64 count = end - first < some ? end - first : some;
            for (i64 p = 0; p < count; p++) {
                transform_input(x, xs, tile(xs, first + p), v + p*in, some * in);
                output_adjoint(dy, ys, tile(ys, first + p), m + p*out, some * out);
            }
            for (i64 k = 0; k < 36; k++) for (i64 n = 0; n < in; n += ROWS_W) for (i64 o = 0; o < out; o += LANES * PANEL)
                multiply_adjoint(v + k*some*in + n, m + k*some*out + o, sum + (k*in + n)*out + o, count, in, out);
        }
    }
    #pragma omp parallel for schedule(static) num_threads(threads)
    for (i64 o = 0; o < out; o += LANES) for (i64 n = 0; n < in; n++) {
        lanes u[36], e[18], g[9];
        for (i64 k = 0; k < 36; k++) {
            u[k] = READ(sums + (k*in + n)*out + o);
            for (int thread = 1; thread < threads; thread++) u[k] += READ(sums + thread*size + (k*in + n)*out + o);
        }
        for (int j = 0; j < 6; j++) g_t(u + j, 6, e + j, 6);
        for (int i = 0; i < 3; i++) g_t(e + 6*i, 1, g + 3*i, 1);
        for (int k = 0; k < 9; k++) for (int c = 0; c < LANES; c++) w[((o + c)*in + n)*9 + k] = g[k][c];
    }
    free(sums);
    return 0;
}

/* G g G^T: w[out, in, 3, 3], with four strides, -> u[36] of panels [out / w][in][w], w = LANES * PANEL. For the adjoint convolution
   the caller swaps in and out with their strides, and turns the kernel by `flip`. */
void transform_weight(const float *w, float *u, i64 in, i64 out, i64 so, i64 si, i64 sy, i64 sx, int flip, int threads) {
    enum { W = LANES * PANEL };
    #pragma omp parallel for schedule(static) num_threads(threads)
    for (i64 n = 0; n < in; n++) for (i64 o0 = 0; o0 < out; o0 += LANES) {
        lanes d[9], e[18], o[36];
        for (int i = 0; i < 3; i++) for (int j = 0; j < 3; j++) {
            const float *q = w + n*si + o0*so + (flip ? 2 - i : i)*sy + (flip ? 2 - j : j)*sx;
            for (int c = 0; c < LANES; c++) d[3*i + j][c] = q[c*so];
        }
        for (int j = 0; j < 3; j++) g(d + j, 3, e + j, 3);
        for (int i = 0; i < 6; i++) g(e + 3*i, 1, o + 6*i, 1);
        for (int k = 0; k < 36; k++) AT(u + k*in*out + (o0 / W * in + n)*W + o0 % W) = o[k];
    }
}
