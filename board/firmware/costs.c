/* What an access and a copy cost the processor: clock cycles, in hundredths, a line each on the console.
 * SPDX-License-Identifier: BSD-2-Clause
 */
#include <stddef.h>

#include "apps/apps.h"
#include "platform.h"

enum { PIECE = 4096, ROUNDS = 8 };

void *memcpy(void *restrict to, const void *restrict from, size_t length);

static uint32_t own[PIECE / 8];

static void tell(const char *what, uint32_t cycles, uint32_t count)
{
    platform_print_hex(what, cycles * 100 / count);
}

#define EIGHT(x) x x x x x x x x
/* The second round counts: its code is in the cache. */
#define MEASURE(what, access)                                      \
    do {                                                           \
        uint32_t cycles = 0;                                       \
        for (unsigned round = 0; round < 2; round++) {             \
            const uint32_t began = platform_cycles();              \
            for (unsigned n = 0; n < ROUNDS; n++) { EIGHT(access) } \
            cycles = platform_cycles() - began;                    \
        }                                                          \
        tell(what, cycles, ROUNDS * 8);                            \
    } while (0)
#define MEASURE_BYTES(what, bytes, work)                \
    do {                                                \
        const uint32_t began = platform_cycles();       \
        work;                                           \
        tell(what, platform_cycles() - began, (bytes)); \
    } while (0)

int main(void)
{
    volatile uint32_t *memory = (volatile uint32_t *)(uintptr_t)MEMORY_BASE, *ram = own;
    uint8_t *bytes = (uint8_t *)(uintptr_t)MEMORY_BASE;

    if (!platform_start_memory())
        return 1;
    MEASURE("ram load ", (void)*ram;);
    MEASURE("ram store ", *ram = 1;);
    MEASURE("memory load ", (void)*memory;);
    MEASURE("memory store ", *memory = 1;);
    MEASURE("register load ", (void)platform_read(ENGINE_BASE + TIPTOE_REG_ID););
    MEASURE("register store ", platform_write(ENGINE_BASE + TIPTOE_REG_MAC_LO, 0););
    MEASURE("clock ", (void)platform_now_us(););
    MEASURE_BYTES("copy ram to memory, byte ", sizeof own, memcpy(bytes, own, sizeof own));
    MEASURE_BYTES("copy memory to memory, byte ", PIECE, memcpy(bytes + 2 * PIECE, bytes, PIECE));
    MEASURE_BYTES("pattern, byte ", PIECE, pattern_fill(bytes, 0, PIECE));
    MEASURE_BYTES("pattern askew, byte ", PIECE, pattern_fill(bytes + 1, 0, PIECE));
    platform_print("done\n");
    return 0;
}
