/* What the driver needs of the platform: registers, a clock, and memory that the engine reaches.
 *
 * Memory may be cached: `fence` and `invalidate` are called where a cache or a write buffer would show. Nothing here is called
 * from another thread or an interrupt: the driver is run by toe_poll() and by the calls of toe.h, one at a time.
 * SPDX-License-Identifier: BSD-2-Clause
 */
#ifndef TOE_DEVICE_H
#define TOE_DEVICE_H

#include <stddef.h>
#include <stdint.h>

struct toe_device {
    void *context; /* handed to every function */
    /* Register or doorbell write, in order; it may be posted. */
    void (*write32)(void *context, uint32_t address, uint32_t value);
    /* Register read: behind the writes before it. All ones: the device is gone. */
    uint32_t (*read32)(void *context, uint32_t address);
    /* A clock that never goes back, microseconds. */
    uint64_t (*now_us)(void *context);
    /* Everything written to `memory` so far is visible to the engine when the next write32 arrives: write buffers drained, dirty
     * cache lines written back. NULL: that is so anyway. */
    void (*fence)(void *context);
    /* What the CPU reads of these bytes from now on is what the engine has written: cache lines are thrown away, none of them is
     * dirty. NULL: memory is coherent, or not cached. */
    void (*invalidate)(void *context, const volatile void *from, size_t bytes);
    uint8_t *memory;  /* as the CPU sees it */
    uint64_t address; /* of memory[0] as the engine sees it; aligned to the largest ring, see TOE_MEMORY_BYTES */
    size_t bytes;
};

#endif
