/* Threads that share loops. Each loop is cut into contiguous ranges, one a thread; a thread that is done takes what is left of the others',
 * so that one which the machine disturbs holds nobody up for long. */
#pragma once
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>

#define MOST_THREADS 256
#define SPINS 4096

#if defined(__x86_64__)
#define RELAX() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define RELAX() __asm__ volatile("yield")
#else
#define RELAX() ((void)0)
#endif

typedef struct {
    _Alignas(64) atomic_llong taken[2];
} Share;

typedef struct {
    _Alignas(64) atomic_int arrived;
    _Alignas(64) atomic_int round;
    Share shares[MOST_THREADS];
} Team;

/* What one thread knows of the loop it is in. */
typedef struct {
    Team *team;
    int thread, threads, victim, turn;
    int64_t size;
} Worker;

/* Wait until all threads are here. */
static void meet(Worker *worker) {
    Team *team = worker->team;
    int round = atomic_load_explicit(&team->round, memory_order_acquire);
    if (atomic_fetch_add_explicit(&team->arrived, 1, memory_order_acq_rel) + 1 == worker->threads) {
        atomic_store_explicit(&team->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&team->round, round + 1, memory_order_release);
        return;
    }
    for (int spins = 0; atomic_load_explicit(&team->round, memory_order_acquire) == round; spins++) {
        if (spins < SPINS) RELAX();
        else sched_yield();
    }
}

/* Begin a loop over `size` units. All threads must meet between two loops. */
static void share(Worker *worker, int64_t size) {
    worker->turn ^= 1;
    worker->victim = 0;
    worker->size = size;
    atomic_store_explicit(&worker->team->shares[worker->thread].taken[worker->turn ^ 1], 0, memory_order_relaxed);
}

/* The next unit of the loop for this thread, or -1 when all are taken. */
static int64_t take(Worker *worker) {
    int threads = worker->threads;
    for (; worker->victim < threads; worker->victim++) {
        int owner = (worker->thread + worker->victim) % threads;
        int64_t first = worker->size * owner / threads, end = worker->size * (owner + 1) / threads;
        int64_t unit = first + atomic_fetch_add_explicit(&worker->team->shares[owner].taken[worker->turn], 1, memory_order_relaxed);
        if (unit < end) return unit;
    }
    return -1;
}
