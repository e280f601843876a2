#include "pool.h"

#include <chrono>
#include <stdexcept>
#include <string>

#if defined(__linux__)
#include <sched.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#include <unistd.h>
#endif

namespace trackbed {

namespace {

constexpr std::chrono::microseconds SPIN{50};  // longer than a phase, and shorter than anybody notices

constexpr std::uint32_t pass_of(std::uint64_t count) { return static_cast<std::uint32_t>(count >> 32); }
constexpr std::uint32_t chunks_of(std::uint64_t count) { return static_cast<std::uint32_t>(count); }
constexpr std::uint64_t counted(std::uint32_t pass, std::uint32_t chunks) {
    return static_cast<std::uint64_t>(pass) << 32 | chunks;
}
// Passes are numbered round and round.
constexpr bool older(std::uint32_t a, std::uint32_t b) { return static_cast<std::int32_t>(a - b) < 0; }

void pause() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__) && defined(__GNUC__)
    asm volatile("yield");
#endif
}

// Whether it came true while spinning.
template <class Condition>
bool spin(const Condition& condition) {
    const auto until = std::chrono::steady_clock::now() + SPIN;
    do {
        for (int i = 0; i < 64; ++i) {
            if (condition()) return true;
            pause();
        }
    } while (std::chrono::steady_clock::now() < until);
    return condition();
}

}  // namespace

Pool::Pool(std::size_t workers) : workers_(workers), phases_(new Phase[MOST_PHASES]) {
    for (std::size_t worker = 1; worker <= workers; ++worker) std::thread(&Pool::work, this, worker).detach();
}

void Pool::run(std::size_t threads, std::size_t phases, Steps steps) {
    if (phases > MOST_PHASES)
        throw std::invalid_argument("a pass of " + std::to_string(phases) + " phases; at most " +
                                    std::to_string(MOST_PHASES) + " are possible");
    const std::lock_guard alone(one_pass_);
    const auto shared = std::make_shared<const Steps>(std::move(steps));
    std::uint32_t pass;
    {
        const std::lock_guard lock(mutex_);
        steps_ = shared;
        threads_ = threads;
        pass = pass_.load() + 1;
        pass_.store(pass);
    }
    if (threads > 1 && idle_.load() > 0) begun_.notify_all();
    Walk walk(*this, pass);
    (*shared)(walk);
}

void Pool::work(std::size_t worker) {
    std::uint32_t seen = 0;
    while (true) {
        if (!spin([&] { return pass_.load() != seen; })) {
            std::unique_lock lock(mutex_);
            ++idle_;
            begun_.wait(lock, [&] { return pass_.load() != seen; });
            --idle_;
        }
        std::shared_ptr<const Steps> steps;
        {
            const std::lock_guard lock(mutex_);
            seen = pass_.load();
            if (worker < threads_) steps = steps_;
        }
        if (!steps) continue;
        Walk walk(*this, seen);
        (*steps)(walk);
    }
}

bool Pool::take(Phase& phase, std::uint32_t pass, std::size_t chunks, std::size_t& chunk) {
    std::uint64_t taken = phase.taken.load();
    while (true) {
        if (older(pass, pass_of(taken))) return false;
        const std::uint32_t next = pass_of(taken) == pass ? chunks_of(taken) : 0;
        // A pass that is over takes nothing, not even where nobody has counted since.
        if (next >= chunks || pass_.load() != pass) return false;
        if (phase.taken.compare_exchange_weak(taken, counted(pass, next + 1))) {
            chunk = next;
            return true;
        }
    }
}

void Pool::finish(Phase& phase, std::uint32_t pass, std::size_t chunks) {
    std::uint64_t done = phase.done.load();
    std::uint32_t before;
    do {
        before = pass_of(done) == pass ? chunks_of(done) : 0;
    } while (!phase.done.compare_exchange_weak(done, counted(pass, before + 1)));
    if (before + 1 == chunks && waiting_.load() > 0) {
        { const std::lock_guard lock(mutex_); }
        done_.notify_all();
    }
}

bool Pool::wait(Phase& phase, std::uint32_t pass, std::size_t chunks) {
    if (chunks == 0) return pass_.load() == pass;
    const std::uint64_t all = counted(pass, static_cast<std::uint32_t>(chunks));
    const auto over = [&] { return phase.done.load() == all || pass_.load() != pass; };
    if (!over() && !spin(over)) {
        std::unique_lock lock(mutex_);
        ++waiting_;
        // A worker that waits when its pass ends is woken by the next one's phases at the latest.
        done_.wait(lock, over);
        --waiting_;
    }
    return phase.done.load() == all;
}

std::size_t usable_cores() {
#if defined(__linux__)
    cpu_set_t cores;
    if (sched_getaffinity(0, sizeof cores, &cores) == 0) return static_cast<std::size_t>(CPU_COUNT(&cores));
#endif
    const unsigned cores_of_machine = std::thread::hardware_concurrency();
    return cores_of_machine ? cores_of_machine : 1;
}

Pool& pool() {
    static std::mutex mutex;
    static Pool* ours = nullptr;  // never freed: its threads may sleep in it when the process ends
#if defined(__unix__) || defined(__APPLE__)
    static pid_t owner = 0;
    const std::lock_guard lock(mutex);
    if (owner != getpid()) {  // the threads of a parent did not come along
        ours = nullptr;
        owner = getpid();
    }
#else
    const std::lock_guard lock(mutex);
#endif
    if (!ours) ours = new Pool(usable_cores() - 1);
    return *ours;
}

}  // namespace trackbed
