/* From reset to main(): stack, initialised data from ROM to memory, the rest zero; and what becomes of a trap.
 * SPDX-License-Identifier: BSD-2-Clause
 */
#include "soc.h"

    .section .start, "ax"
    .globl _start
_start:
    la      sp, stack_end
    la      t0, trap_entry
    csrw    mtvec, t0
    li      t0, 1 << TIPTOE_INTERRUPT
    csrw    0xBC0, t0 /* VexRiscv's mask of what 0xFC0 shows */
    la      a0, data_start
    la      a1, data_end
    la      a2, data_image
1:  bgeu    a0, a1, 2f
    lw      t0, 0(a2)
    sw      t0, 0(a0)
    addi    a0, a0, 4
    addi    a2, a2, 4
    j       1b
2:  la      a1, bss_end
3:  bgeu    a0, a1, 4f
    sw      zero, 0(a0)
    addi    a0, a0, 4
    j       3b
4:  call    main
    j       .

    /* No interrupt is enabled (the engine's line is looked at, see platform.c): a trap is a fault of the program or of the bus. */
    .balign 4
trap_entry:
    la      sp, stack_end
    csrr    a0, mcause
    csrr    a1, mepc
    csrr    a2, mtval
    call    platform_trap
    j       .
