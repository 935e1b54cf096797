// Local response normalization as in tower_lrn.cu, of half tensors in TensorRT's layout HWC8:
// [N, H, W, C], the channels innermost, in units of eight. Convolutions in half write and read it,
// so that no other layer has to reorder what this one reads and writes.
//
// A unit is 16 bytes, and a tower has whole units. A thread normalizes the eight channels of a unit
// with those that the window has of the two units beside it, which the neighbouring threads have
// just brought to the cache.
//
// With the pool, a thread has a column of the pooled map: it walks down two columns of b, and has a
// third from the thread to its right, through shared memory; the threads to the right of the map
// are there for that column alone. Two such rows take turns, so that a row needs one barrier. What
// the next row needs is on the way while this one is computed. A block makes ROWS rows of the
// pooled map, of UNITS units, out of 2 * ROWS + 1 rows of b; each b of a block is computed once.
//
// The ReLU stays here, though a convolution could do it: it is three quarters of an instruction a
// channel, of some 14 in all. A multiprocessor issues 16 while its special-function units compute
// the two roots of a channel, and no byte less would be read or written.
//
// The numbers are literals of the compiler's command line: CHANNELS HEIGHT WIDTH TOWERS SIZE ALPHA
// BETA K POOLED ROWS THREADS RESIDENT as in tower_lrn.cu, and
//
//     UNITS                   of a place, that a block has if POOLED
//
// The grid is one row of blocks: N * PARTS * SLABS if POOLED, else N * PARTS.

#include "lrn.cuh"

constexpr int UNIT = 8;  // channels
constexpr int UNITS_OF_PLACE = CHANNELS / UNIT;
constexpr int UNITS_OF_TOWER = TOWER / UNIT;
constexpr int REGISTERS = UNIT / 2;

constexpr int BESIDE = (REACH + 1) / 2;  // registers for what the window has of the next unit
constexpr int ALL = BESIDE + REGISTERS + BESIDE;

struct alignas(16) Unit {
    unsigned halves[REGISTERS];  // two in each
};

inline float number(unsigned halves, int which) {
    half low, high;
    asm("mov.b32 {%0, %1}, %2;" : "=h"(low.bits), "=h"(high.bits) : "r"(halves));
    return number(which == 0 ? low : high);
}

inline unsigned rounded(float low, float high) {
    unsigned result;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(high), "f"(low));
    return result;
}

inline unsigned larger(unsigned a, unsigned b) {
    unsigned result;
    asm("max.NaN.f16x2 %0, %1, %2;" : "=r"(result) : "r"(a), "r"(b));
    return result;
}

inline Unit larger(Unit a, Unit b) {
    for (int i = 0; i < REGISTERS; ++i) a.halves[i] = larger(a.halves[i], b.halves[i]);
    return a;
}

// A unit of the input, and the channels on either side of it; zeros beyond the tower.
struct Inputs {
    unsigned halves[ALL];

    Inputs() = default;

    Inputs(const Unit* unit, int number_in_tower) {
        const Unit middle = *unit;
        for (int i = 0; i < REGISTERS; ++i) halves[BESIDE + i] = middle.halves[i];
        const bool is_first = number_in_tower == 0, is_last = number_in_tower == UNITS_OF_TOWER - 1;
        for (int i = 0; i < BESIDE; ++i) {
            halves[i] = is_first ? 0 : unit[-1].halves[REGISTERS - BESIDE + i];
            halves[BESIDE + REGISTERS + i] = is_last ? 0 : unit[1].halves[i];
        }
    }

    Inputs rectified() const {
        Inputs result;
        for (int i = 0; i < ALL; ++i) result.halves[i] = larger(halves[i], 0);
        return result;
    }

    Unit normalize() const {
        float a[UNIT + 2 * REACH];
        for (int i = 0; i < UNIT + 2 * REACH; ++i) {
            const int place = 2 * BESIDE - REACH + i;
            a[i] = number(halves[place / 2], place % 2);
        }
        Unit b;
        for (int i = 0; i < UNIT; i += 2) {
            // The windows of two channels share all squares but their outer ones.
            float inner = 0;
            for (int j = 1; j < SIZE; ++j) inner = fmaf(a[i + j], a[i + j], inner);
            const float low = normalized(a[i + REACH], fmaf(a[i], a[i], inner));
            const float high = normalized(a[i + 1 + REACH], fmaf(a[i + SIZE], a[i + SIZE], inner));
            b.halves[i / 2] = rounded(low, high);
        }
        return b;
    }
};

#if POOLED

constexpr int COLUMNS = 2;  // of b, that a thread computes
constexpr int SLABS = UNITS_OF_PLACE / UNITS;
constexpr int PARTS = rounded_up(POOLED_HEIGHT, ROWS) / ROWS;

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
relu_tower_lrn_pool(const Unit* __restrict__ input, Unit* __restrict__ output) {
    __shared__ Unit firsts[2][THREADS];  // columns of b, of two rows
    const int column = threadIdx.x / UNITS;
    const int unit = blockIdx.x % SLABS * UNITS + threadIdx.x % UNITS;
    const int part = blockIdx.x / SLABS % PARTS;
    const size_t image = blockIdx.x / (SLABS * PARTS);
    const int top = part * ROWS, rows = at_most(ROWS, POOLED_HEIGHT - top);
    const bool has_output = column < POOLED_WIDTH;

    const int place = 2 * top * WIDTH + COLUMNS * column;
    const Unit* next = input + (image * PLACES + place) * UNITS_OF_PLACE + unit;
    Inputs coming[COLUMNS] = {};
    const auto ask_for_next = [&] {
        for (int i = 0; i < COLUMNS; ++i)
            if (i == 0 || has_output)
                coming[i] = Inputs(next + i * UNITS_OF_PLACE, unit % UNITS_OF_TOWER);
        next += WIDTH * UNITS_OF_PLACE;
    };
    // Returns the largest of three b beside each other in the next row; `turn` is 0 and 1 in turn.
    const auto largest = [&](int turn, bool is_last) {
        const Inputs first = coming[0].rectified(), second = coming[1].rectified();
        if (!is_last) ask_for_next();
        const Unit b = first.normalize();
        firsts[turn][threadIdx.x] = b;
        const Unit pair = larger(b, second.normalize());
        __syncthreads();
        return has_output ? larger(pair, firsts[turn][threadIdx.x + UNITS]) : pair;
    };

    ask_for_next();
    Unit above = largest(0, false);
    const size_t pooled_place = (image * POOLED_HEIGHT + top) * POOLED_WIDTH + column;
    Unit* pooled = output + pooled_place * UNITS_OF_PLACE + unit;
    for (int row = 0; row < rows; ++row) {
        const Unit middle = largest(1, false), below = largest(0, row == rows - 1);
        if (has_output) *pooled = larger(larger(above, middle), below);
        pooled += POOLED_WIDTH * UNITS_OF_PLACE;
        above = below;
    }
}

#else

constexpr int UNITS_OF_IMAGE = PLACES * UNITS_OF_PLACE;
constexpr int PARTS = rounded_up(UNITS_OF_IMAGE, THREADS) / THREADS;

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
tower_lrn(const Unit* __restrict__ input, Unit* __restrict__ output) {
    const int unit = blockIdx.x % PARTS * THREADS + threadIdx.x;
    if (unit >= UNITS_OF_IMAGE) return;
    const size_t offset = size_t(blockIdx.x / PARTS) * UNITS_OF_IMAGE + unit;
    output[offset] = Inputs(input + offset, unit % UNITS_OF_TOWER).normalize();
}

#endif
