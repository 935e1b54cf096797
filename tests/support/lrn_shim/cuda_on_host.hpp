// What tower_lrn.cu needs of CUDA, on a CPU: blocks run one after another, and the threads of a
// block are fibers of one CPU thread that give way at each __syncthreads().
//
// Made to fail where a GPU might only sometimes: shared memory and outputs begin as NaN, fibers
// run in either order between barriers, and input and output lie against pages that may not be
// touched.

// C headers only: those of C++ would take most of the time of a compilation.
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

// What CUDA C++ brings with it.

struct Index {
    unsigned x;
};
static Index threadIdx, blockIdx;
static void __syncthreads();

#define __global__
#define __launch_bounds__(threads, resident)
#define __shared__ static __attribute__((section("shared_memory")))

extern "C" {
float exp2f(float);
float fmaf(float, float, float);
float fmaxf(float, float);
float log2f(float);
float sqrtf(float);
}
inline float rsqrtf(float a) { return 1 / sqrtf(a); }

// What tower_lrn.cu defines for a GPU.

struct half {
    _Float16 value;
};

inline float number(float a) { return a; }
inline float number(half a) { return float(a.value); }

template <class Scalar> Scalar rounded(float a);
template <> inline float rounded<float>(float a) { return a; }
template <> inline half rounded<half>(float a) { return {_Float16(a)}; }

inline float larger(float a, float b) { return b > a || b != b ? b : a; }
inline half larger(half a, half b) { return {_Float16(larger(number(a), number(b)))}; }

inline void prefetch_if(bool wanted, const void* address) {
    static volatile char sink;
    if (wanted) sink = *static_cast<const volatile char*>(address);  // it must be readable
}

// Fibers.

constexpr unsigned MOST_THREADS = 1024;  // of a block, as on a GPU
constexpr size_t STACK = 64 << 10;

static ucontext_t scheduler, fibers[MOST_THREADS];
static char stacks[MOST_THREADS][STACK];
static unsigned finished;
static void (*fiber_body)();

static void __syncthreads() { swapcontext(&fibers[threadIdx.x], &scheduler); }

static void run_fiber() {
    fiber_body();
    ++finished;
}

// The linker gives these names to the ends of a section; there is none if no kernel uses it.
extern "C" char __start_shared_memory[] __attribute__((weak, visibility("hidden")));
extern "C" char __stop_shared_memory[] __attribute__((weak, visibility("hidden")));

// Returns false if some threads ended while others waited at a barrier.
static bool run_block(unsigned threads, bool backwards) {
    if (__start_shared_memory)
        memset(__start_shared_memory, 0xff, __stop_shared_memory - __start_shared_memory);
    for (unsigned i = 0; i < threads; ++i) {
        getcontext(&fibers[i]);
        fibers[i].uc_stack.ss_sp = stacks[i];
        fibers[i].uc_stack.ss_size = STACK;
        fibers[i].uc_link = &scheduler;
        makecontext(&fibers[i], run_fiber, 0);
    }
    finished = 0;
    while (finished == 0)  // else all have come to a barrier
        for (unsigned i = 0; i < threads; ++i) {
            threadIdx.x = backwards ? threads - 1 - i : i;
            swapcontext(&scheduler, &fibers[threadIdx.x]);
        }
    return finished == threads;
}

// Memory between two pages that may not be touched, against the one or the other.

class GuardedMemory {
  public:
    GuardedMemory(size_t bytes, bool at_end) {
        const size_t page = sysconf(_SC_PAGESIZE);
        const size_t inner = (bytes + page - 1) / page * page;
        size_ = inner + 2 * page;
        void* all = mmap(nullptr, size_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        start_ = static_cast<char*>(all);
        mprotect(start_ + page, inner, PROT_READ | PROT_WRITE);
        data = start_ + page + (at_end ? inner - bytes : 0);
        memset(start_ + page, 0xff, inner);
    }
    ~GuardedMemory() { munmap(start_, size_); }

    char* data;

  private:
    char* start_;
    size_t size_;
};

static sigjmp_buf before_fault;
static void on_fault(int) { siglongjmp(before_fault, 1); }

// Run a kernel on `input`, and copy what it wrote to `output`.
//
// 0: done; 1: it touched memory that is not its own; 2: its threads do not all meet at a barrier.
template <class Scalar>
int launch(void (*kernel)(const Scalar*, Scalar*), unsigned blocks, unsigned threads,
           const char* input, size_t input_bytes, char* output, size_t output_bytes, int at_end) {
    GuardedMemory from(input_bytes, at_end), to(output_bytes, at_end);
    memcpy(from.data, input, input_bytes);
    static const Scalar* kernel_input;
    static Scalar* kernel_output;
    static void (*kernel_entry)(const Scalar*, Scalar*);
    kernel_input = reinterpret_cast<const Scalar*>(from.data);
    kernel_output = reinterpret_cast<Scalar*>(to.data);
    kernel_entry = kernel;
    fiber_body = [] { kernel_entry(kernel_input, kernel_output); };

    struct sigaction action = {}, previous;
    action.sa_handler = on_fault;
    action.sa_flags = SA_NODEFER;
    sigaction(SIGSEGV, &action, &previous);
    volatile int result = 0;
    if (sigsetjmp(before_fault, 1) == 0) {
        for (blockIdx.x = 0; blockIdx.x < blocks && result == 0; ++blockIdx.x)
            if (!run_block(threads, at_end)) result = 2;
    } else {
        result = 1;
    }
    sigaction(SIGSEGV, &previous, nullptr);
    memcpy(output, to.data, output_bytes);
    return result;
}
