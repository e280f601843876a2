// The threads that share a pass, and how they share it.
//
// A pass is a row of phases, each of so many chunks. Every thread walks through all phases; in each it takes chunks
// that nobody has taken, and goes on once all are done, whoever has done them. So a thread that the system has put
// aside holds the others up by the chunk it is in, not by the phases that it has missed: it may even come back when
// the pass is over. Waiting spins for a moment and then sleeps, which leaves the core to whoever needs it.
//
// The threads serve the whole process: one pass runs at a time. A child of a fork starts threads of its own.

#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace trackbed {

class Pool;

// A thread's walk through one pass.
class Walk {
   public:
    Walk(Pool& pool, std::uint32_t pass) : pool_(pool), pass_(pass) {}

    // The next phase: calls run(chunk) for each chunk that this thread takes, and returns once all are done. False
    // where the pass has ended without this thread, which must then return: what the pass works on is gone.
    template <class Run>
    bool phase(std::size_t chunks, Run&& run);

   private:
    Pool& pool_;
    std::uint32_t pass_;
    std::size_t phase_ = 0;
};

class Pool {
   public:
    // What every thread does in a pass. It keeps alive all that it looks at outside of chunks.
    using Steps = std::function<void(Walk&)>;

    static constexpr std::size_t MOST_PHASES = 4096;

    explicit Pool(std::size_t workers);

    // Walks a pass with so many threads, the caller's among them. Throws std::invalid_argument for too many phases.
    void run(std::size_t threads, std::size_t phases, Steps steps);

    // run(chunk) for every chunk.
    template <class Run>
    void each(std::size_t threads, std::size_t chunks, Run&& run) {
        this->run(threads, 1, [chunks, &run](Walk& walk) { walk.phase(chunks, run); });
    }

   private:
    friend class Walk;

    // How many chunks of a phase were taken, and done. The high halves name the pass that counts, so that nothing
    // has to be reset, and a thread that comes late to an older pass takes nothing.
    struct alignas(64) Phase {
        std::atomic<std::uint64_t> taken{0};
        std::atomic<std::uint64_t> done{0};
    };

    void work(std::size_t worker);
    bool take(Phase& phase, std::uint32_t pass, std::size_t chunks, std::size_t& chunk);
    void finish(Phase& phase, std::uint32_t pass, std::size_t chunks);
    bool wait(Phase& phase, std::uint32_t pass, std::size_t chunks);

    const std::size_t workers_;
    const std::unique_ptr<Phase[]> phases_;
    std::mutex one_pass_;  // held by whoever walks one

    std::atomic<std::uint32_t> pass_{0};
    std::atomic<int> waiting_{0}, idle_{0};  // threads that sleep: inside a pass, and between two
    std::mutex mutex_;                       // guards sleep, and what follows
    std::condition_variable done_, begun_;
    std::size_t threads_ = 0;
    std::shared_ptr<const Steps> steps_;
};

// The pool of this process.
Pool& pool();

// How many cores this process may use.
std::size_t usable_cores();

template <class Run>
bool Walk::phase(std::size_t chunks, Run&& run) {
    Pool::Phase& phase = pool_.phases_[phase_++];
    std::size_t chunk;
    while (pool_.take(phase, pass_, chunks, chunk)) {
        run(chunk);
        pool_.finish(phase, pass_, chunks);
    }
    return pool_.wait(phase, pass_, chunks);
}

}  // namespace trackbed
