/* Threads that share loops. A loop is over when its units are done, not when all threads have been there: one that the machine keeps from running
 * holds nobody up unless it has units in hand, and finds its place again when it is back. Other programs run on the same cores. */
#pragma once
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>

#define SPINS 4096
#define SHARES 4 /* of what is left of a loop with neighbours, a thread takes one in SHARES x threads */

#if defined(__x86_64__)
#define RELAX() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define RELAX() __asm__ volatile("yield")
#else
#define RELAX() ((void)0)
#endif

/* Units that were given out, and that were finished. */
typedef struct {
    _Alignas(64) atomic_llong taken;
    atomic_llong done;
} Loop;

/* What one thread knows of the loop it is in. All go through the same loops, each of which has its own counters, zero at first. */
typedef struct {
    Loop *loop;
    int threads, neighbours;
    int64_t size, unit, end, held;
} Worker;

/* Begin a loop over `size` units. neighbours: units that are taken one after the other by one thread are done faster; otherwise each is so long
 * that it is better to take them one by one. */
static void share(Worker *worker, int64_t size, int neighbours) {
    worker->loop++;
    worker->neighbours = neighbours;
    worker->size = size;
    worker->unit = worker->end = worker->held = 0;
}

/* The next unit of the loop for this thread, or -1 when all are taken. */
static int64_t take(Worker *worker) {
    if (worker->unit < worker->end) return worker->unit++;
    if (worker->held) atomic_fetch_add_explicit(&worker->loop->done, worker->held, memory_order_acq_rel);
    int64_t taken = atomic_load_explicit(&worker->loop->taken, memory_order_relaxed), count;
    do {
        if (taken >= worker->size) {
            worker->held = 0;
            return -1;
        }
        count = worker->neighbours ? (worker->size - taken) / (SHARES * worker->threads) : 1;
        count = count ? count : 1;
    } while (!atomic_compare_exchange_weak_explicit(&worker->loop->taken, &taken, taken + count, memory_order_relaxed, memory_order_relaxed));
    worker->unit = taken + 1, worker->end = taken + count, worker->held = count;
    return taken;
}

/* Wait until the loop is done. */
static void meet(const Worker *worker) {
    for (int spins = 0; atomic_load_explicit(&worker->loop->done, memory_order_acquire) < worker->size; spins++) {
        if (spins < SPINS) RELAX();
        else sched_yield();
    }
}
