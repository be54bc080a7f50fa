/* What a compiler calls for copies and comparisons: by words where both ends allow it, since each access of host memory takes the bus.
 * SPDX-License-Identifier: BSD-2-Clause
 */
#include <stddef.h>
#include <stdint.h>

typedef uint32_t __attribute__((may_alias)) word;

void *memcpy(void *restrict to, const void *restrict from, size_t length)
{
    uint8_t *at = to;
    const uint8_t *source = from;

    if ((((uintptr_t)at ^ (uintptr_t)source) & 3) == 0) {
        for (; length && (uintptr_t)at & 3; length--)
            *at++ = *source++;
        for (; length >= 16; length -= 16, at += 16, source += 16) {
            word a = ((const word *)source)[0], b = ((const word *)source)[1];
            word c = ((const word *)source)[2], d = ((const word *)source)[3];

            ((word *)at)[0] = a;
            ((word *)at)[1] = b;
            ((word *)at)[2] = c;
            ((word *)at)[3] = d;
        }
        for (; length >= 4; length -= 4, at += 4, source += 4)
            *(word *)at = *(const word *)source;
    }
    while (length--)
        *at++ = *source++;
    return to;
}

void *memmove(void *to, const void *from, size_t length)
{
    uint8_t *at = to;
    const uint8_t *source = from;

    if (at <= source || at >= source + length)
        return memcpy(to, from, length);
    while (length--)
        at[length] = source[length];
    return to;
}

void *memset(void *to, int value, size_t length)
{
    uint8_t *at = to;
    word filled = (uint8_t)value * 0x01010101u;

    for (; length && (uintptr_t)at & 3; length--)
        *at++ = (uint8_t)value;
    for (; length >= 4; length -= 4, at += 4)
        *(word *)at = filled;
    while (length--)
        *at++ = (uint8_t)value;
    return to;
}

int memcmp(const void *left, const void *right, size_t length)
{
    const uint8_t *a = left, *b = right;

    for (; length; length--, a++, b++)
        if (*a != *b)
            return *a < *b ? -1 : 1;
    return 0;
}
