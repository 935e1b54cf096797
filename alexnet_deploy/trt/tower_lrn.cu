// Local response normalization within towers (Krizhevsky et al. 2012, section 3.3): alone, and
// between the ReLU before it and the 3x3 max-pool of stride 2 after it (section 3.4).
//
//     b[c] = a[c] / (k + alpha/n * sum of a[j]^2, j from c - n/2 to c + n/2 in c's tower) ^ beta
//
// a and b are [N, C, H, W] tensors of float or half in C order. Sums are float: the square of a
// half overflows it above 255. A NaN spoils the windows that it is in and nothing else.
//
// Each thread stands at a few places of the map and walks through the channels of one tower, two
// at a time, with the window in registers, so that it reads each input once. What its next step
// needs is on the way while this one computes; what later steps need is on the way from memory to
// the L2 cache. Maps of 55x55 begin at any even address, so that halves are read one by one.
//
// With the pool, the b of a step's two channels go to shared memory, each computed once, and are
// pooled from there. Two such planes take turns, so that a step needs one barrier. A block makes
// ROWS rows of the pooled map out of 2 * ROWS + 1 rows of b; only the row between two blocks is
// computed by both, and the second reads it from the cache.
//
// The numbers are literals of the compiler's command line, which unrolls what they bound:
//
//     SCALAR                  float or half
//     CHANNELS HEIGHT WIDTH   of the input
//     TOWERS                  that the channels are divided among
//     SIZE ALPHA BETA K       of the formula; SIZE is n, odd
//     POOLED                  1: ReLU, this, max-pool; 0: this alone
//     STRETCH                 channels of a block
//     ROWS                    of the pooled map of a block, if POOLED
//     SPOTS                   of a thread: places, or if POOLED pairs of them
//     THREADS                 of a block
//     RESIDENT                blocks that are to fit on a multiprocessor at once
//
// The grid is one row of N * TOWERS * STRETCHES * PARTS blocks.

#include "lrn.cuh"

inline void prefetch_if(bool wanted, const void* address) {
    asm volatile("{ .reg .pred p; setp.ne.u32 p, %0, 0; @p prefetch.global.L2 [%1]; }"
                 :
                 : "r"(unsigned(wanted)), "l"(address));
}

constexpr int STEP = 2;    // channels at a time
constexpr int AHEAD = 6;   // channels that are on their way to the cache
constexpr int LINE = 128;  // bytes that the cache fetches at once
constexpr int STRETCHES = rounded_up(TOWER, STRETCH) / STRETCH;
constexpr bool ONLY_WHOLE_STEPS = STRETCH % STEP == 0 && TOWER % STRETCH == 0;

// What a block works on: channels of a tower, in one of `parts` parts of its map.
struct Share {
    int part, first, last;  // channels `first` to `last`, without `last`
    size_t tower;           // counted through all images

    explicit Share(int parts) {
        part = blockIdx.x % parts;
        first = blockIdx.x / parts % STRETCHES * STRETCH;
        last = ONLY_WHOLE_STEPS ? first + STRETCH : at_most(first + STRETCH, TOWER);
        tower = blockIdx.x / (parts * STRETCHES);
    }
};

// A thread's walk through the channels, at SPOTS spots of WIDE places beside each other.
template <int WIDE, bool RECTIFY> struct Walk {
    static constexpr int COUNT = SPOTS * WIDE;

    const SCALAR* spots[SPOTS];  // in channel `next`
    bool has_right[SPOTS];       // is the second place of a spot inside the map?
    int next;                    // the first channel that has not been asked for
    SCALAR coming[STEP][COUNT];
    float window[SIZE - 1 + STEP][COUNT];

    void begin(int first) {
        SCALAR before[SIZE - 1 + STEP][COUNT] = {};
        next = first - REACH;
        for (int i = 0; i < SPOTS; ++i) spots[i] += next * PLACES;
        for (int j = 0; j < SIZE - 1 + STEP; ++j) ask_for(before[j], j, next + j);
        for (int j = 0; j < SIZE - 1; ++j) take(before[j], window[STEP + j]);
        for (int g = 0; g < STEP; ++g)
            for (int i = 0; i < COUNT; ++i) coming[g][i] = before[SIZE - 1 + g][i];
        advance(SIZE - 1 + STEP);
    }

    // Move the window a step on. INSIDE promises that the next step ends within the tower.
    template <bool INSIDE> void step() {
        for (int j = 0; j < SIZE - 1; ++j)
            for (int i = 0; i < COUNT; ++i) window[j][i] = window[j + STEP][i];
        for (int g = 0; g < STEP; ++g) {
            take(coming[g], window[SIZE - 1 + g]);
            ask_for(coming[g], g, INSIDE ? 0 : next + g);
        }
        advance(STEP);
    }

    // The windows of a step's two channels share all squares but their outer ones.
    void normalize(float (&b)[STEP][COUNT]) const {
        for (int i = 0; i < COUNT; ++i) {
            float inner = 0;
            for (int j = 1; j < SIZE; ++j) inner = fmaf(window[j][i], window[j][i], inner);
            for (int g = 0; g < STEP; ++g) {
                const float outer = window[g * SIZE][i];
                b[g][i] = normalized(window[g + REACH][i], fmaf(outer, outer, inner));
            }
        }
    }

    void ask_for(SCALAR (&inputs)[COUNT], int offset, int channel) const {
        const bool is_inside = 0 <= channel && channel < TOWER;
        for (int i = 0; i < COUNT; ++i)
            if (!is_inside)
                inputs[i] = SCALAR{};
            else if (i % WIDE == 0 || has_right[i / WIDE])
                inputs[i] = spots[i / WIDE][offset * PLACES + i % WIDE];
    }

    static void take(const SCALAR (&inputs)[COUNT], float (&a)[COUNT]) {
        for (int i = 0; i < COUNT; ++i)
            a[i] = RECTIFY ? larger(number(inputs[i]), 0.0f) : number(inputs[i]);
    }

    void advance(int channels) {
        next += channels;
        for (int i = 0; i < SPOTS; ++i) spots[i] += channels * PLACES;
    }
};

// Brings what a block will read to the cache, some channels before its walk asks for it.
struct Forerunner {
    int next;
    const char* line;
    bool is_used;

    // `map`: what the block reads of the tower's first channel, `bytes` of it.
    Forerunner(const SCALAR* map, int bytes, int first) {
        const int lines = rounded_up(bytes, LINE) / LINE, channel = threadIdx.x / lines;
        is_used = channel < STEP;
        next = first + channel;
        line = reinterpret_cast<const char*>(map + next * PLACES) + threadIdx.x % lines * LINE;
        for (int i = 0; i < AHEAD; i += STEP) step();
    }

    void step() {
        prefetch_if(is_used && next < TOWER, line);
        next += STEP;
        line += STEP * PLACES * sizeof(SCALAR);
    }
};

template <bool VALUE> struct Known {
    static constexpr bool value = VALUE;
};

// Call `step(is_inside, channel)` for every STEPth channel. After (SIZE + 1) / STEP steps every
// number of the window is a new one: unrolled so often, none moves from register to register.
template <class Step> void walk_through(const Share& share, Step step) {
    int channel = share.first;
    const int inside = at_most(share.last, TOWER - REACH - 2 * STEP + 1);
#pragma unroll((SIZE + 1) / STEP)
    for (; channel < inside; channel += STEP) step(Known<true>{}, channel);
#pragma unroll
    for (; channel < share.last; channel += STEP) step(Known<false>{}, channel);
}

#if POOLED

constexpr int PARTS = rounded_up(POOLED_HEIGHT, ROWS) / ROWS;

// A row of b in shared memory: every two outputs beside each other begin at a quad.
template <class Scalar> struct alignas(4 * sizeof(Scalar)) Quad {
    Pair<Scalar> left, right;
};
constexpr int QUADS = POOLED_WIDTH / 2 + 1;
constexpr int PAIRS = (2 * ROWS + 1) * 2 * QUADS;
constexpr int PLANE = rounded_up(PAIRS + 1 > SPOTS * THREADS ? PAIRS + 1 : SPOTS * THREADS, 2) / 2;

// A thread's part in the pooling of a step: TASKS times two neighbouring outputs.
struct Pooling {
    static constexpr int TWINS = (POOLED_WIDTH + 1) / 2;
    static constexpr int TASKS = rounded_up(STEP * ROWS * TWINS, THREADS) / THREADS;

    SCALAR* outputs[TASKS];
    int corners[TASKS];  // quads from the start of the planes
    int channels[TASKS];
    bool has_left[TASKS], has_right[TASKS];

    Pooling(SCALAR* output, const Share& share) {
        for (int i = 0; i < TASKS; ++i) {
            const int task = threadIdx.x + i * THREADS;
            const int g = task / (ROWS * TWINS), row = task / TWINS % ROWS, twin = task % TWINS;
            const int top = share.part * ROWS + row;
            channels[i] = share.first + g;
            has_left[i] = g < STEP && top < POOLED_HEIGHT;
            has_right[i] = has_left[i] && 2 * twin + 1 < POOLED_WIDTH;
            corners[i] = has_left[i] ? g * PLANE + 2 * row * QUADS + twin : 0;
            const size_t row_of_all = (share.tower * TOWER + channels[i]) * POOLED_HEIGHT + top;
            outputs[i] = output + row_of_all * POOLED_WIDTH + 2 * twin;
        }
    }

    void step(const Quad<SCALAR>* planes, int last) {
        for (int i = 0; i < TASKS; ++i) {
            const Quad<SCALAR>* corner = planes + corners[i];
            Pair<SCALAR> left = corner->left, right = corner->right;
            SCALAR beyond = corner[1].left.left;
            for (int row = 1; row < 3; ++row) {
                corner += QUADS;
                left = larger(left, corner->left);
                right = larger(right, corner->right);
                beyond = larger(beyond, corner[1].left.left);
            }
            const bool is_there = ONLY_WHOLE_STEPS || channels[i] < last;
            if (is_there && has_left[i])
                outputs[i][0] = larger(larger(left.left, left.right), right.left);
            if (is_there && has_right[i])
                outputs[i][1] = larger(larger(right.left, right.right), beyond);
            outputs[i] += STEP * POOLED_HEIGHT * POOLED_WIDTH;
            channels[i] += STEP;
        }
    }
};

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
relu_tower_lrn_pool(const SCALAR* __restrict__ input, SCALAR* __restrict__ output) {
    __shared__ Quad<SCALAR> planes[2][STEP][PLANE];
    const Share share(PARTS);
    const int top = 2 * ROWS * share.part;
    const int rows = at_most(2 * ROWS + 1, 2 * POOLED_HEIGHT + 1 - top);
    const SCALAR* map = input + share.tower * TOWER * PLACES + top * WIDTH;

    Forerunner forerunner(map, rows * WIDTH * sizeof(SCALAR), share.first + REACH + STEP);
    Walk<2, true> walk;
    for (int i = 0; i < SPOTS; ++i) {
        const int pair = threadIdx.x + i * THREADS;
        const int row = pair / (2 * QUADS), column = pair % (2 * QUADS) * 2;
        const bool is_there = row < rows && column < WIDTH;
        walk.spots[i] = map + (is_there ? row * WIDTH + column : 0);
        walk.has_right[i] = WIDTH % 2 == 0 || column + 1 < WIDTH;
    }
    walk.begin(share.first);
    Pooling pooling(output, share);

    walk_through(share, [&](auto is_inside, int channel) {
        const int turn = channel / STEP % 2;
        forerunner.step();
        float b[STEP][2 * SPOTS];
        walk.template step<is_inside.value>();
        walk.normalize(b);
        for (int g = 0; g < STEP; ++g) {
            auto* pairs = reinterpret_cast<Pair<SCALAR>*>(planes[turn][g]);
            for (int i = 0; i < SPOTS; ++i)
                pairs[threadIdx.x + i * THREADS] = {rounded<SCALAR>(b[g][2 * i]),
                                                    rounded<SCALAR>(b[g][2 * i + 1])};
        }
        __syncthreads();  // and nobody pools from the other plane any more: it may be filled
        pooling.step(planes[turn][0], share.last);
    });
}

#else

constexpr int PARTS = rounded_up(PLACES, SPOTS * THREADS) / (SPOTS * THREADS);

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
tower_lrn(const SCALAR* __restrict__ input, SCALAR* __restrict__ output) {
    const Share share(PARTS);
    const int start = share.part * SPOTS * THREADS;
    const int places = at_most(SPOTS * THREADS, PLACES - start);
    const size_t offset = share.tower * TOWER * PLACES + start;
    const SCALAR* map = input + offset;

    Forerunner forerunner(map, places * sizeof(SCALAR), share.first + REACH + STEP);
    Walk<1, false> walk;
    bool is_there[SPOTS];
    for (int i = 0; i < SPOTS; ++i) {
        const int place = threadIdx.x + i * THREADS;
        is_there[i] = place < places;
        walk.spots[i] = map + (is_there[i] ? place : 0);
    }
    walk.begin(share.first);

    SCALAR* normed = output + offset + share.first * PLACES + threadIdx.x;
    walk_through(share, [&](auto is_inside, int channel) {
        forerunner.step();
        float b[STEP][SPOTS];
        walk.template step<is_inside.value>();
        walk.normalize(b);
        for (int g = 0; g < STEP; ++g)
            for (int i = 0; i < SPOTS; ++i) {
                const SCALAR value = rounded<SCALAR>(b[g][i]);
                if (is_there[i] && (ONLY_WHOLE_STEPS || channel + g < share.last))
                    normed[g * PLACES + i * THREADS] = value;
            }
        normed += STEP * PLACES;
    });
}

#endif
