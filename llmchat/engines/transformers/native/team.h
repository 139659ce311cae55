/* Threads that share loops. A loop is over when its units are done, not when all threads have been there: one that the machine keeps from running
 * holds nobody up unless it has units in hand, and finds its place again when it is back. Other programs run on the same cores. */
#pragma once
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>

#define SPINS 4096
#define SHARES 4 /* of what is left of a range with neighbours, a thread takes one in SHARES */

#if defined(__x86_64__)
#define RELAX() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define RELAX() __asm__ volatile("yield")
#else
#define RELAX() ((void)0)
#endif

/* Units that were finished, and those that were given out of each thread's range. */
typedef struct {
    _Alignas(64) atomic_int done;
    atomic_int taken[];
} Loop;

#define LOOP_SIZE(threads) (((1 + (int64_t)(threads)) * (int64_t)sizeof(atomic_int) + 63) / 64 * 64)

/* What one thread knows of the loop it is in. All go through the same loops, each of which has its own counters, zero at first. */
typedef struct {
    Loop *loop;
    int threads, index, neighbours;
    int64_t size, unit, end, held;
} Worker;

/* Where the range of a thread begins: it ends where that of the next one begins. */
static int64_t range_of(const Worker *worker, int64_t size, int thread) { return size * thread / worker->threads; }

/* Begin a loop over `size` units. Each thread has a range of them, and helps the others when it is through. neighbours: units are so short that a
 * thread takes several at once. */
static void share(Worker *worker, int64_t size, int neighbours) {
    worker->loop = (Loop *)((char *)worker->loop + LOOP_SIZE(worker->threads));
    worker->neighbours = neighbours;
    worker->size = size;
    worker->unit = worker->end = worker->held = 0;
}

/* The next unit of the loop for this thread, or -1 when all are taken. */
static int64_t take(Worker *worker) {
    if (worker->unit < worker->end) return worker->unit++;
    if (worker->held) atomic_fetch_add_explicit(&worker->loop->done, worker->held, memory_order_acq_rel);
    worker->held = 0;
    for (int i = 0; i < worker->threads; i++) {
        int whose = (worker->index + i) % worker->threads;
        int64_t begin = range_of(worker, worker->size, whose), count, left;
        int taken = atomic_load_explicit(&worker->loop->taken[whose], memory_order_relaxed);
        while ((left = range_of(worker, worker->size, whose + 1) - begin - taken) > 0) {
            count = worker->neighbours ? left / SHARES : 1;
            count = count ? count : 1;
            if (!atomic_compare_exchange_weak_explicit(&worker->loop->taken[whose], &taken, taken + count, memory_order_relaxed, memory_order_relaxed))
                continue;
            worker->unit = begin + taken + 1, worker->end = begin + taken + count, worker->held = count;
            return begin + taken;
        }
    }
    return -1;
}

/* Wait until the loop is done. */
static void meet(const Worker *worker) {
    for (int spins = 0; atomic_load_explicit(&worker->loop->done, memory_order_acquire) < worker->size; spins++) {
        if (spins < SPINS) RELAX();
        else sched_yield();
    }
}
