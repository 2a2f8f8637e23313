#include "threads.h"

#include <stdatomic.h>
#include <stdlib.h>

typedef void (*gomp_parallel_fn)(void (*body)(void *), void *data, unsigned threads, unsigned flags);

static gomp_parallel_fn gomp_parallel;

/* The entry of the OpenMP runtime that torch has loaded: a second runtime would keep threads of its own, and the two
   would fight over the cores. Without one, everything runs on the calling thread. */
void parkway_use_threads_of(void *entry) { gomp_parallel = (gomp_parallel_fn)entry; }

typedef struct {
    work_fn work;
    void *job;
    int64_t items;
    _Atomic int64_t next_item;
    _Atomic int64_t next_thread;
    char *scratch;
    size_t scratch_each;
} region;

static void run(void *data) {
    region *all = data;
    int64_t thread = atomic_fetch_add(&all->next_thread, 1);
    char *scratch = all->scratch + thread * all->scratch_each;
    for (int64_t item; (item = atomic_fetch_add(&all->next_item, 1)) < all->items;) all->work(all->job, item, scratch);
}

/* Grows, and lives as long as its thread: a step of the engine asks for the same sizes again and again. */
static _Thread_local char *kept;
static _Thread_local size_t kept_bytes;

int parallel(work_fn work, void *job, int64_t items, int threads, size_t scratch) {
    if (threads > items) threads = (int)items;
    if (!gomp_parallel || threads < 1) threads = 1;
    scratch = (scratch + 63) & ~(size_t)63;
    if (scratch * threads > kept_bytes) {
        free(kept);
        kept_bytes = scratch * threads;
        kept = aligned_alloc(64, kept_bytes);
        if (!kept) return kept_bytes = 0, -1;
    }
    region all = {work, job, items, 0, 0, kept, scratch};
    if (threads == 1)
        run(&all);
    else
        gomp_parallel(run, &all, (unsigned)threads, 0);
    return 0;
}
