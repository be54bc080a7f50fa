/* The board as a program without an operating system sees it: console, clock, the engine's interrupt line.
 * SPDX-License-Identifier: BSD-2-Clause
 */
#include "platform.h"

enum { CYCLES_PER_US = CONFIG_CLOCK_FREQUENCY / 1000000 };

int platform_irq(void)
{
    uint32_t lines;

    /* VexRiscv's own register of the lines that are high and let through by 0xBC0 (see start.S). */
    __asm__ volatile("csrr %0, 0xFC0" : "=r"(lines));
    return lines >> TIPTOE_INTERRUPT & 1;
}

uint32_t platform_cycles(void)
{
    platform_write(CSR_TIMER0_UPTIME_LATCH_ADDR, 1);
    return platform_read(CSR_TIMER0_UPTIME_CYCLES_ADDR + 4); /* the upper half comes first */
}

void platform_wait_us(uint32_t microseconds)
{
    const uint32_t began = platform_cycles();

    while (platform_cycles() - began < microseconds * CYCLES_PER_US)
        ;
}

/* Right as long as it is asked every 2^32 cycles at least, 85 s at 50 MHz: no 64-bit division. */
uint64_t platform_now_us(void)
{
    static uint64_t now_us;
    static uint32_t counted;
    uint32_t whole = (platform_cycles() - counted) / CYCLES_PER_US;

    counted += whole * CYCLES_PER_US;
    now_us += whole;
    return now_us;
}

static void put(char letter)
{
    uint32_t began = platform_cycles();

    while (platform_read(CSR_UART_TXFULL_ADDR))
        if (platform_cycles() - began > CONFIG_CLOCK_FREQUENCY / 1000)
            return;
    platform_write(CSR_UART_RXTX_ADDR, (uint8_t)letter);
}

void platform_print(const char *text)
{
    while (*text)
        put(*text++);
}

void platform_print_hex(const char *text, uint32_t number)
{
    char digits[10];
    int at;

    for (at = 7; at >= 0; at--, number >>= 4)
        digits[at] = "0123456789abcdef"[number & 15];
    digits[8] = '\n';
    digits[9] = 0;
    platform_print(text);
    platform_print(digits);
}

void platform_secret(uint32_t *numbers, unsigned count)
{
    uint32_t state = platform_read(CSR_STATUS_BUILD_ADDR);

    while (count--) { /* Marsaglia's xorshift; how long the console took goes in */
        state ^= platform_cycles();
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        *numbers++ = state;
    }
}

void platform_fault(enum platform_fault fault)
{
    platform_write(CSR_PROGRAM_FAULT_ADDR, fault);
}

void platform_trap(uint32_t cause, uint32_t where, uint32_t value)
{
    platform_fault(FAULT_TRAP);
    platform_print_hex("trap ", cause);
    platform_print_hex("  at ", where);
    platform_print_hex("  value ", value);
    for (;;)
        ;
}
