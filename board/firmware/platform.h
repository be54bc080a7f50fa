/* The board as a program without an operating system sees it.
 * SPDX-License-Identifier: BSD-2-Clause
 */
#ifndef PLATFORM_H
#define PLATFORM_H

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

/* The console. It waits while the line is busy; what nobody takes in a millisecond (a console over the bridge) is left out. */
void platform_print(const char *text);
/* Text, a number of eight hex digits, and a new line. */
void platform_print_hex(const char *text, uint32_t number);

/* Numbers that differ from start to start as far as this board can: there is no source of randomness, see docs/board.md. */
void platform_secret(uint32_t *numbers, unsigned count);

/* What the driver wants of the board (device.c). */
struct toe_device;
void platform_device(struct toe_device *device);

/* A trap has no way back: says so on the console and stands still. */
void platform_trap(uint32_t cause, uint32_t where, uint32_t value);

#endif
