/* Bytes that both ends can compute: docs/driver.md has it in Python.
 * SPDX-License-Identifier: BSD-2-Clause
 */
#include "apps.h"

void pattern_fill(uint8_t *to, uint64_t from, size_t length)
{
    uint32_t word = (uint32_t)(from / 4) * 2654435761u;
    unsigned byte = (unsigned)(from % 4);

    while (length--) {
        *to++ = (uint8_t)(word >> 8 * byte);
        if (++byte == 4) {
            byte = 0;
            word += 2654435761u;
        }
    }
}
