// What this machine can do at most: bytes read from memory, and multiply-adds of bytes and of floats.
//
// A share of these is how far a kernel is from what cannot be beaten. Each rate is that of loops that do nothing
// else, the best of a dozen short runs, on so many threads at once. The instruction set is the best that the
// processor has, whatever the kernels use; each loop is compiled for its own. This file knows no kernel.

#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <memory>
#include <new>
#include <numeric>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif
#if defined(TRACKBED_X86)
#include <immintrin.h>
#endif

namespace nb = nanobind;
using namespace nb::literals;

namespace {

constexpr int RUNS = 12;
constexpr std::size_t BUFFER = std::size_t{256} << 20;  // bytes: more than any cache keeps
constexpr std::size_t HUGE_PAGE = std::size_t{2} << 20;
constexpr int CHAINS = 12;  // of multiply-adds that do not wait for one another
constexpr long STEPS = 4'000'000;

std::atomic<std::int64_t> sink;  // what loops compute goes here, so that none is left out

// How many operations a loop does in one step, and the loop.
struct Loop {
    const char* name;
    double operations;
    void (*run)(long steps);
};

// The value is in a register, and the compiler may not guess it.
#if defined(__GNUC__)
#define OPAQUE(reg, x) __asm__ volatile("" : "+" reg(x))
#else
#define OPAQUE(reg, x) (void)(x)
#endif

void int8_generic(long steps) {
    std::int8_t a[64], b[64];
    std::int32_t sums[16] = {};
    for (int i = 0; i < 64; ++i) a[i] = static_cast<std::int8_t>(i), b[i] = static_cast<std::int8_t>(64 - i);
    for (long step = 0; step < steps; ++step) {
        const std::int8_t turn = static_cast<std::int8_t>(step);
        for (int i = 0; i < 16; ++i)
            for (int j = 0; j < 4; ++j)
                sums[i] += static_cast<std::int16_t>(static_cast<std::int8_t>(a[4 * i + j] ^ turn)) * b[4 * i + j];
    }
    for (const std::int32_t sum : sums) sink += sum;
}

void float_generic(long steps) {
    float sums[32] = {};
    float x = 1.0f, y = 1e-9f;
    for (long step = 0; step < steps; ++step) {
        for (float& sum : sums) sum += x * y;
        x += 1e-9f;
    }
    for (const float sum : sums) sink += static_cast<std::int64_t>(sum);
}

#if defined(TRACKBED_X86)

// Of unsigned and signed bytes, four of each into a 32-bit sum: 512 bits a step and chain.
__attribute__((target("avx512f,avx512bw,avx512vnni"))) void int8_vnni512(long steps) {
    __m512i sums[CHAINS], x = _mm512_set1_epi32(0x01020304), y = _mm512_set1_epi32(0x01010101);
    for (int i = 0; i < CHAINS; ++i) sums[i] = _mm512_set1_epi32(i);
    for (long step = 0; step < steps; ++step) {
        OPAQUE("v", x);
        OPAQUE("v", y);
#pragma GCC unroll 12
        for (int i = 0; i < CHAINS; ++i) sums[i] = _mm512_dpbusd_epi32(sums[i], x, y);
    }
    for (int i = 1; i < CHAINS; ++i) sums[0] = _mm512_add_epi32(sums[0], sums[i]);
    sink += _mm512_reduce_add_epi32(sums[0]);
}

// The same in three instructions, where the processor has no other: the products of pairs in 16 bits, saturated.
__attribute__((target("avx2"))) void int8_avx2(long steps) {
    constexpr int chains = 8;
    __m256i sums[chains], x = _mm256_set1_epi32(0x01020304), y = _mm256_set1_epi32(0x01010101);
    const __m256i ones = _mm256_set1_epi16(1);
    for (int i = 0; i < chains; ++i) sums[i] = _mm256_set1_epi32(i);
    for (long step = 0; step < steps; ++step) {
        OPAQUE("x", x);
        OPAQUE("x", y);
#pragma GCC unroll 8
        for (int i = 0; i < chains; ++i) {
            __m256i pairs = _mm256_maddubs_epi16(x, y);
            OPAQUE("x", pairs);
            sums[i] = _mm256_add_epi32(sums[i], _mm256_madd_epi16(pairs, ones));
        }
    }
    for (int i = 1; i < chains; ++i) sums[0] = _mm256_add_epi32(sums[0], sums[i]);
    sink += _mm256_extract_epi32(sums[0], 0);
}

__attribute__((target("avx512f"))) void float_avx512(long steps) {
    __m512 sums[CHAINS], x = _mm512_set1_ps(1.0f), y = _mm512_set1_ps(1e-9f);
    for (int i = 0; i < CHAINS; ++i) sums[i] = _mm512_set1_ps(static_cast<float>(i));
    for (long step = 0; step < steps; ++step) {
        OPAQUE("v", x);
        OPAQUE("v", y);
#pragma GCC unroll 12
        for (int i = 0; i < CHAINS; ++i) sums[i] = _mm512_fmadd_ps(x, y, sums[i]);
    }
    for (int i = 1; i < CHAINS; ++i) sums[0] = _mm512_add_ps(sums[0], sums[i]);
    sink += static_cast<std::int64_t>(_mm512_reduce_add_ps(sums[0]));
}

__attribute__((target("avx2,fma"))) void float_avx2(long steps) {
    __m256 sums[CHAINS], x = _mm256_set1_ps(1.0f), y = _mm256_set1_ps(1e-9f);
    for (int i = 0; i < CHAINS; ++i) sums[i] = _mm256_set1_ps(static_cast<float>(i));
    for (long step = 0; step < steps; ++step) {
        OPAQUE("x", x);
        OPAQUE("x", y);
#pragma GCC unroll 12
        for (int i = 0; i < CHAINS; ++i) sums[i] = _mm256_fmadd_ps(x, y, sums[i]);
    }
    for (int i = 1; i < CHAINS; ++i) sums[0] = _mm256_add_ps(sums[0], sums[i]);
    sink += static_cast<std::int64_t>(_mm256_cvtss_f32(sums[0]));
}

#endif

Loop best_int8() {
#if defined(TRACKBED_X86)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw"))
        return {"avx512-vnni", CHAINS * 64 * 2.0, int8_vnni512};
    if (__builtin_cpu_supports("avx2")) return {"avx2", 8 * 32 * 2.0, int8_avx2};
#endif
    return {"generic", 64 * 2.0, int8_generic};
}

Loop best_float() {
#if defined(TRACKBED_X86)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f")) return {"avx512", CHAINS * 16 * 2.0, float_avx512};
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return {"avx2", CHAINS * 8 * 2.0, float_avx2};
#endif
    return {"generic", 32 * 2.0, float_generic};
}

// The seconds that this thread has had a processor for; where the system does not say, those of the clock.
double thread_seconds() {
#if defined(CLOCK_THREAD_CPUTIME_ID)
    timespec now;
    if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now) == 0) return now.tv_sec + 1e-9 * now.tv_nsec;
#endif
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// `work(thread)` on all threads at once, time after time. The sum of what each thread does in a second: its best run,
// by its own time on a processor, so that a neighbour who takes a core takes nothing from what the core can do.
template <typename Work>
double runs_a_second(int threads, Work work) {
    std::vector<double> best(threads);
    std::vector<std::atomic<int>> ready(RUNS);
    for (auto& count : ready) count = 0;
    std::vector<std::thread> pool;
    for (int thread = 0; thread < threads; ++thread)
        pool.emplace_back([&, thread] {
            for (int run = 0; run < RUNS; ++run) {
                ++ready[run];
                while (ready[run] < threads) std::this_thread::yield();
                const double started = thread_seconds();
                work(thread);
                best[thread] = std::max(best[thread], 1 / (thread_seconds() - started));
            }
        });
    for (std::thread& thread : pool) thread.join();
    return std::accumulate(best.begin(), best.end(), 0.0);
}

// The seconds of the fastest run, of `work(thread)` on all threads: from when all are ready to when the last is done.
// Memory is shared, so threads that do not run at once would each be told to have all of it: the clock counts here.
template <typename Prepare, typename Work>
double fastest(int threads, Prepare prepare, Work work) {
    using clock = std::chrono::steady_clock;
    std::vector<clock::time_point> begun(RUNS * threads), ended(RUNS * threads);
    std::vector<std::atomic<int>> ready(RUNS);
    for (auto& count : ready) count = 0;
    std::vector<std::thread> pool;
    for (int thread = 0; thread < threads; ++thread)
        pool.emplace_back([&, thread] {
            prepare(thread);
            for (int run = 0; run < RUNS; ++run) {
                ++ready[run];
                while (ready[run] < threads) std::this_thread::yield();
                begun[run * threads + thread] = clock::now();
                work(thread);
                ended[run * threads + thread] = clock::now();
            }
        });
    for (std::thread& thread : pool) thread.join();
    double best = 0;
    for (int run = 0; run < RUNS; ++run) {
        const auto from = begun.begin() + run * threads, to = ended.begin() + run * threads;
        const auto last = *std::max_element(to, to + threads), first = *std::min_element(from, from + threads);
        const double seconds = std::chrono::duration<double>(last - first).count();
        best = run ? std::min(best, seconds) : seconds;
    }
    return best;
}

double rate(const Loop& loop, int threads) {
    nb::gil_scoped_release released;
    return loop.operations * STEPS * runs_a_second(threads, [&loop](int) { loop.run(STEPS); });
}

// Four sums, so that loads need not wait for additions; the compiler widens them as far as it may.
std::uint64_t sum_generic(const std::uint64_t* words, std::size_t count) {
    std::uint64_t a = 0, b = 0, c = 0, d = 0;
    for (std::size_t i = 0; i + 4 <= count; i += 4) {
        a += words[i], b += words[i + 1], c += words[i + 2], d += words[i + 3];
    }
    return a + b + c + d;
}

#if defined(TRACKBED_X86)
__attribute__((target("avx2"))) std::uint64_t sum_avx2(const std::uint64_t* words, std::size_t count) {
    __m256i sums[4] = {};
    for (std::size_t i = 0; i + 16 <= count; i += 16) {
        _mm_prefetch(reinterpret_cast<const char*>(words + i) + 4096, _MM_HINT_T0);
        _mm_prefetch(reinterpret_cast<const char*>(words + i) + 4160, _MM_HINT_T0);
        for (int j = 0; j < 4; ++j) {
            const auto* at = reinterpret_cast<const __m256i*>(words + i + 4 * j);
            sums[j] = _mm256_add_epi64(sums[j], _mm256_load_si256(at));
        }
    }
    const __m256i all = _mm256_add_epi64(_mm256_add_epi64(sums[0], sums[1]), _mm256_add_epi64(sums[2], sums[3]));
    return static_cast<std::uint64_t>(_mm256_extract_epi64(all, 0));
}
#endif

double read_rate(int threads) {
    nb::gil_scoped_release released;
    const auto sum = [] {
#if defined(TRACKBED_X86)
        __builtin_cpu_init();
        if (__builtin_cpu_supports("avx2")) return sum_avx2;
#endif
        return sum_generic;
    }();
    const std::unique_ptr<void, decltype(&std::free)> buffer(std::aligned_alloc(HUGE_PAGE, BUFFER), &std::free);
    if (!buffer) throw std::bad_alloc();
#if defined(__linux__)
    madvise(buffer.get(), BUFFER, MADV_HUGEPAGE);
#endif
    const std::size_t share = BUFFER / threads / 4096 * 4096;  // bytes, of whole pages
    char* const start = static_cast<char*>(buffer.get());
    const double seconds = fastest(
        threads,
        [&](int thread) { std::memset(start + thread * share, 1, share); },  // by the thread that reads it
        [&](int thread) {
            sink += static_cast<std::int64_t>(
                sum(reinterpret_cast<const std::uint64_t*>(start + thread * share), share / sizeof(std::uint64_t)));
        });
    return static_cast<double>(share) * threads / seconds;
}

int checked(int threads) {
    if (threads < 1 || threads > 1024) throw std::invalid_argument("threads must be 1 to 1024");
    return threads;
}

}  // namespace

void bind_limits(nb::module_& m) {
    m.def("read_rate", [](int threads) { return read_rate(checked(threads)); }, "threads"_a,
          "The bytes that so many threads read from memory in a second.");
    m.def("int8_rate", [](int threads) { return rate(best_int8(), checked(threads)); }, "threads"_a,
          "The multiplications and additions of bytes that so many threads do in a second.");
    m.def("int8_instructions", [] { return std::string(best_int8().name); },
          "The instructions that int8_rate is of.");
    m.def("float_rate", [](int threads) { return rate(best_float(), checked(threads)); }, "threads"_a,
          "The multiplications and additions of float32 that so many threads do in a second.");
}
