/* The OpenMP runtime that torch has loaded, called as compilers call it, so that the process keeps
 * one pool of threads. */
#pragma once

typedef struct {
    void (*parallel)(void (*function)(void *), void *data, unsigned threads, unsigned flags);
    int (*team_size)(void);
} OpenMP;

/* Run a function on up to `threads` threads; on this one alone where there is no OpenMP. */
static void run_parallel(const OpenMP *openmp, void (*function)(void *), void *data, int threads) {
    if (openmp)
        openmp->parallel(function, data, threads, 0);
    else
        function(data);
}

/* Threads of the running team, which may be fewer than were requested. */
static int team_size(const OpenMP *openmp) { return openmp ? openmp->team_size() : 1; }
