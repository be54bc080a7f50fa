/* The driver's seam on this board: registers, clock, memory.
 *
 * Nothing has to be flushed: accesses go out in the order of the program, one at a time, and those to host memory and to the engine pass no
 * cache (board/tiptoe_board/cpu.py); the compiler alone must not move them.
 * SPDX-License-Identifier: BSD-2-Clause
 */
#include "device.h"
#include "platform.h"

static void write32(void *context, uint32_t address, uint32_t value)
{
    (void)context;
    platform_write(ENGINE_BASE + address, value);
}

static uint32_t read32(void *context, uint32_t address)
{
    (void)context;
    return platform_read(ENGINE_BASE + address);
}

static uint64_t now_us(void *context)
{
    (void)context;
    return platform_now_us();
}

static void fence(void *context)
{
    (void)context;
    __asm__ volatile("" ::: "memory");
}

static void invalidate(void *context, const volatile void *from, size_t bytes)
{
    (void)from;
    (void)bytes;
    fence(context);
}

void platform_device(struct toe_device *device)
{
    *device = (struct toe_device){
        .write32 = write32, .read32 = read32, .now_us = now_us, .fence = fence, .invalidate = invalidate,
        .memory = (uint8_t *)(uintptr_t)MEMORY_BASE, .address = 0, .bytes = MEMORY_SIZE,
    };
}
