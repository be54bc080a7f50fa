/* The shortest program that tells whether a board works: which build it is, that host memory works, and that the engine answers.
 * SPDX-License-Identifier: BSD-2-Clause
 */
#include "platform.h"
#include "tiptoe.h"

int main(void)
{
    uint32_t began;

    platform_print_hex("tiptoe build ", platform_read(CSR_STATUS_BUILD_ADDR));
    if (!platform_start_memory())
        return 1;
    platform_print_hex("engine id ", platform_read(ENGINE_BASE + TIPTOE_REG_ID));
    platform_print_hex("engine version ", platform_read(ENGINE_BASE + TIPTOE_REG_VERSION));
    began = platform_cycles();
    platform_write(ENGINE_BASE + TIPTOE_REG_CONTROL, TIPTOE_CONTROL_SOFT_RESET_MASK);
    while (platform_read(ENGINE_BASE + TIPTOE_REG_CONTROL) & TIPTOE_CONTROL_SOFT_RESET_MASK ||
           !(platform_read(ENGINE_BASE + TIPTOE_REG_STATUS) & TIPTOE_STATUS_READY_MASK))
        if (platform_cycles() - began > CONFIG_CLOCK_FREQUENCY) {
            platform_print("engine does not come out of reset\n");
            return 1;
        }
    platform_print_hex("engine ready after cycles ", platform_cycles() - began);
    return 0;
}
