// What the kernels of local response normalization share: the formula's numbers, and a GPU's own
// instructions for halves and maxima.

constexpr int at_most(int a, int b) { return a < b ? a : b; }
constexpr int rounded_up(int a, int b) { return (a + b - 1) / b * b; }

constexpr int REACH = SIZE / 2;
constexpr int PLACES = HEIGHT * WIDTH;
constexpr int TOWER = CHANNELS / TOWERS;
constexpr int POOLED_HEIGHT = (HEIGHT - 3) / 2 + 1;
constexpr int POOLED_WIDTH = (WIDTH - 3) / 2 + 1;

inline float normalized(float a, float sum_of_squares) {
    const float s = fmaf(float(ALPHA / SIZE), sum_of_squares, float(K));
    if constexpr (BETA == 0.75) {
        const float root = rsqrtf(s);  // s^-0.75 = s^-0.5 * s^-0.25
        return a * (root * sqrtf(root));
    } else {
        return a * exp2f(float(0 - BETA) * log2f(s));
    }
}

template <class Scalar> struct alignas(2 * sizeof(Scalar)) Pair {
    Scalar left, right;
};

struct half {
    unsigned short bits;
};

inline float number(float a) { return a; }

inline float number(half a) {
    float result;
    asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(a.bits));
    return result;
}

template <class Scalar> Scalar rounded(float a);

template <> inline float rounded<float>(float a) { return a; }

template <> inline half rounded<half>(float a) {
    half result;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result.bits) : "f"(a));
    return result;
}

// The larger of two numbers, and NaN if either is one: as in NumPy and PyTorch, unlike fmaxf.
inline float larger(float a, float b) {
    float result;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));
    return result;
}

inline half larger(half a, half b) {
    half result;
    asm("max.NaN.f16 %0, %1, %2;" : "=h"(result.bits) : "h"(a.bits), "h"(b.bits));
    return result;
}

inline Pair<half> larger(Pair<half> a, Pair<half> b) {
    Pair<half> result;
    asm("{ .reg .b32 a, b; mov.b32 a, {%2, %3}; mov.b32 b, {%4, %5};"
        "  max.NaN.f16x2 a, a, b; mov.b32 {%0, %1}, a; }"
        : "=h"(result.left.bits), "=h"(result.right.bits)
        : "h"(a.left.bits), "h"(a.right.bits), "h"(b.left.bits), "h"(b.right.bits));
    return result;
}

template <class Scalar> Pair<Scalar> larger(Pair<Scalar> a, Pair<Scalar> b) {
    return {larger(a.left, b.left), larger(a.right, b.right)};
}
