/* Threads that share loops. A loop is over when its units are done, not when all threads have been there: one that the machine keeps from running
 * holds nobody up unless it has units in hand, and finds its place again when it is back. Other programs run on the same cores. */
#pragma once
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>

#include "vectors.h"

#define SPINS 4096
#define SHARES 4 /* of what is left of a range with neighbours, a thread takes one in SHARES */

#if defined(__x86_64__)
#define RELAX() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define RELAX() __asm__ volatile("yield")
#else
#define RELAX() ((void)0)
#endif

/* Units that were finished, and those that were given out of each thread's range: to itself from the front, to the others from the end, in one number. */
typedef struct {
    _Alignas(64) atomic_llong done;
    atomic_llong taken[];
} Loop;

#define HELPED (1ll << 32) /* one unit from the end */
#define LOOP_SIZE(threads) (((1 + (int64_t)(threads)) * (int64_t)sizeof(atomic_llong) + 63) / 64 * 64)

/* What one thread knows of the loop it is in. All go through the same loops, each of which has its own counters, zero at first. */
typedef struct {
    Loop *loop;
    int threads, index, neighbours;
    int64_t size, unit, end, held;
} Worker;

/* Where the range of a thread begins: it ends where that of the next one begins. */
static int64_t range_of(const Worker *worker, int64_t size, int thread) { return size * thread / worker->threads; }

/* Begin a loop over `size` units. Each thread has a range of them, and helps the others when it is through, from the end: what they have asked for
 * ahead stays what they take next. neighbours: units are so short that a thread takes several of its own at once. */
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
        int64_t begin = range_of(worker, worker->size, whose), end = range_of(worker, worker->size, whose + 1);
        long long taken = atomic_load_explicit(&worker->loop->taken[whose], memory_order_relaxed);
        for (int64_t front, back; (front = taken % HELPED, back = taken / HELPED, front + back < end - begin);) {
            int64_t count = i || !worker->neighbours ? 1 : MAX(1, (end - begin - front - back) / SHARES), first = i ? end - back - 1 : begin + front;
            if (!atomic_compare_exchange_weak_explicit(&worker->loop->taken[whose], &taken, taken + (i ? HELPED : count), memory_order_relaxed,
                                                       memory_order_relaxed))
                continue;
            worker->unit = first + 1, worker->end = first + count, worker->held = count;
            return first;
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
