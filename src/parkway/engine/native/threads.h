/* Work divided between the threads that torch already has. */

#ifndef PARKWAY_THREADS_H
#define PARKWAY_THREADS_H

#include <stddef.h>
#include <stdint.h>

/* One piece of work: `job` is shared, `item` says which piece, `scratch` belongs to the thread. */
typedef void (*work_fn)(void *job, int64_t item, char *scratch);

/* Do the items 0 to `items` - 1 with up to `threads` threads; each gets `scratch` bytes of its own, aligned to 64.
   Returns 0, or -1 where there is no memory: then nothing was done. */
int parallel(work_fn work, void *job, int64_t items, int threads, size_t scratch);

#endif
