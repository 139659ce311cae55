/* Assertions of the checked build (LLMCHAT_NATIVE=checked, see build.py).
 *
 * In the normal build every macro here expands to nothing. */
#pragma once

#ifdef LLMCHAT_CHECKED
#include <sanitizer/asan_interface.h>
#include <stdio.h>
#include <stdlib.h>

#define ASSERT(condition) ((condition) ? (void)0 : assertion_failed(#condition, __FILE__, __LINE__))
#define ARENA_GAP 64 /* bytes between two allocations of the workspace that no access may touch */
#define POISON(start, bytes) ASAN_POISON_MEMORY_REGION(start, bytes)
#define UNPOISON(start, bytes) ASAN_UNPOISON_MEMORY_REGION(start, bytes)

static void assertion_failed(const char *condition, const char *file, int line) {
    fprintf(stderr, "%s:%d: assertion failed: %s\n", file, line, condition);
    abort();
}
#else
#define ASSERT(condition) ((void)0)
#define ARENA_GAP 0
#define POISON(start, bytes) ((void)0)
#define UNPOISON(start, bytes) ((void)0)
#endif
