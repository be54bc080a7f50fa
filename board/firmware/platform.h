/* The board as a program without an operating system sees it.
 * SPDX-License-Identifier: BSD-2-Clause
 */
#ifndef PLATFORM_H
#define PLATFORM_H

#include <stdbool.h>
#include <stdint.h>

#include "csr.h"
#include "mem.h"
#include "soc.h"

/* A register of the SoC or of the engine, by its address on the bus. */
static inline uint32_t platform_read(uintptr_t address) { return *(volatile const uint32_t *)address; }
static inline void platform_write(uintptr_t address, uint32_t value) { *(volatile uint32_t *)address = value; }

/* Is the engine's interrupt line high? */
int platform_irq(void);

/* Microseconds since the first call. */
uint64_t platform_now_us(void);
/* Clock cycles since the power came; the lower half. */
uint32_t platform_cycles(void);
/* Let so many microseconds pass, a second at most. */
void platform_wait_us(uint32_t microseconds);

/* The console. It waits while the line is busy; what nobody takes in a millisecond (a console over the bridge) is left out. */
void platform_print(const char *text);
/* Text, a number of eight hex digits, and a new line. */
void platform_print_hex(const char *text, uint32_t number);

/* Numbers that differ from start to start as far as this board can: there is no source of randomness, see docs/board.md. */
void platform_secret(uint32_t *numbers, unsigned count);

/* Make host memory ready for the engine: a DDR3 chip has to be started (dram.c). False: it does not work; the console tells why. */
bool platform_start_memory(void);

/* What the program says of itself in the register `fault`: not 0, and the first LED hurries. */
enum platform_fault {
    FAULT_NONE = 0,
    FAULT_MEMORY = 1, /* DDR3 does not work; it is tried again every second */
    FAULT_DRIVER = 2, /* the driver or a server has not started */
    FAULT_TRAP = 3
};
void platform_fault(enum platform_fault fault);

/* What the driver wants of the board (device.c). */
struct toe_device;
void platform_device(struct toe_device *device);

/* A trap has no way back: says so on the console and stands still. */
void platform_trap(uint32_t cause, uint32_t where, uint32_t value);

#endif
