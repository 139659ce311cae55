/* Assertions of the checked build (LLMCHAT_NATIVE=checked, see build.py); nothing is left of them in the usual one. */
#pragma once

#ifdef LLMCHAT_CHECKED
#include <sanitizer/asan_interface.h>
#include <stdio.h>
#include <stdlib.h>

#define ASSERT(truth) ((truth) ? (void)0 : assertion_failed(#truth, __FILE__, __LINE__))
#define GAP 64 /* bytes between two rooms of the workspace, which nobody may touch */
#define CLOSE(at, bytes) ASAN_POISON_MEMORY_REGION(at, bytes)
#define OPEN(at, bytes) ASAN_UNPOISON_MEMORY_REGION(at, bytes)

static void assertion_failed(const char *truth, const char *file, int line) {
    fprintf(stderr, "%s:%d: assertion failed: %s\n", file, line, truth);
    abort();
}
#else
#define ASSERT(truth) ((void)0)
#define GAP 0
#define CLOSE(at, bytes) ((void)0)
#define OPEN(at, bytes) ((void)0)
#endif
