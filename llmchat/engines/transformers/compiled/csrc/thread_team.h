/* Parallel loops over units of work, with work stealing, for a team of threads.
 *
 * A barrier waits until every unit of the loop is done, not until every thread has arrived: a
 * thread that the operating system has descheduled delays the others only if it holds an unfinished
 * unit. Other programs share the cores. */
#pragma once
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>

#include "vectors.h"

#define SPINS 4096
#define BATCH_FRACTION 4 /* of its remaining fine-grained units, a thread takes one in so many */

#if defined(__x86_64__)
#define CPU_RELAX() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define CPU_RELAX() __asm__ volatile("yield")
#else
#define CPU_RELAX() ((void)0)
#endif

/* Counters of one loop, zero at first. done: units finished. taken: for each thread, the units that
 * were taken from its range: by itself from the front (low half) and by others from the back. */
typedef struct {
    _Alignas(64) atomic_llong done;
    atomic_llong taken[];
} Loop;

#define ONE_FROM_BACK (1ll << 32)
#define COUNTERS_SIZE(threads) ((1 + (int64_t)(threads)) * (int64_t)sizeof(atomic_llong))
#define LOOP_SIZE(threads) ROUND_UP(COUNTERS_SIZE(threads), 64)

/* The position of one thread in the sequence of loops. Every thread goes through the same loops. */
typedef struct {
    Loop *loop;
    int threads, index, fine_grained;
    int64_t size;       /* units of the loop */
    int64_t unit, end;  /* the units in hand that are still to be returned */
    int64_t unreported; /* units in hand that are not yet counted as done */
} LoopCursor;

static int64_t range_begin(const LoopCursor *cursor, int64_t size, int thread) {
    return size * thread / cursor->threads;
}

/* Begin a loop over `size` units. Each thread owns a contiguous range. When its range is empty, it
 * steals single units from the back of the other ranges, because their owners have prefetched from
 * the front. fine_grained: units are so short that an owner takes several at once. */
static void loop_begin(LoopCursor *cursor, int64_t size, int fine_grained) {
    cursor->loop = (Loop *)((char *)cursor->loop + LOOP_SIZE(cursor->threads));
    cursor->fine_grained = fine_grained;
    cursor->size = size;
    cursor->unit = cursor->end = cursor->unreported = 0;
}

/* Take units from the range of the thread `distance` places further on; -1 if it is empty. */
static int64_t take_from(LoopCursor *cursor, int distance) {
    int owner = (cursor->index + distance) % cursor->threads;
    int64_t begin = range_begin(cursor, cursor->size, owner);
    int64_t end = range_begin(cursor, cursor->size, owner + 1), front, back;
    atomic_llong *counter = &cursor->loop->taken[owner];
    long long taken = atomic_load_explicit(counter, memory_order_relaxed);
    while (front = taken % ONE_FROM_BACK, back = taken / ONE_FROM_BACK,
           front + back < end - begin) {
        int64_t left = end - begin - front - back;
        int64_t count = distance || !cursor->fine_grained ? 1 : MAX(1, left / BATCH_FRACTION);
        int64_t first = distance ? end - back - 1 : begin + front;
        long long next = taken + (distance ? ONE_FROM_BACK : count);
        if (atomic_compare_exchange_weak_explicit(counter, &taken, next, memory_order_relaxed,
                                                  memory_order_relaxed)) {
            cursor->unit = first + 1, cursor->end = first + count, cursor->unreported = count;
            return first;
        }
    }
    return -1;
}

/* The next unit of the loop for this thread, or -1 when all are taken. */
static int64_t loop_next(LoopCursor *cursor) {
    if (cursor->unit < cursor->end) return cursor->unit++;
    if (cursor->unreported)
        atomic_fetch_add_explicit(&cursor->loop->done, cursor->unreported, memory_order_acq_rel);
    cursor->unreported = 0;
    for (int distance = 0; distance < cursor->threads; distance++) {
        int64_t unit = take_from(cursor, distance);
        if (unit >= 0) return unit;
    }
    return -1;
}

/* Wait until every unit of the loop is done. */
static void barrier(const LoopCursor *cursor) {
    const atomic_llong *done = &cursor->loop->done;
    for (int spins = 0; atomic_load_explicit(done, memory_order_acquire) < cursor->size; spins++) {
        if (spins < SPINS)
            CPU_RELAX();
        else
            sched_yield();
    }
}
