/* Bytes that both ends can compute: docs/driver.md has it in Python.
 * SPDX-License-Identifier: BSD-2-Clause
 */
#include "apps.h"

static const uint32_t STEP = 2654435761u;

/* Whole words: a store of one costs as much as one of a byte where memory is not cached. */
static size_t fill_words(uint8_t *to, uint32_t word, size_t length)
{
    uint32_t *at = (uint32_t *)(void *)to, *const end = at + length / 4;

    for (; at < end; word += STEP)
        *at++ = word;
    return length & ~(size_t)3;
}

void pattern_fill(uint8_t *to, uint64_t from, size_t length)
{
    while (length) {
        const unsigned skip = (unsigned)(from % 4);
        uint32_t word = (uint32_t)(from / 4) * STEP >> 8 * skip;
        size_t count = 4 - skip < length ? 4 - skip : length;

        if (!skip && length >= 4 && ((uintptr_t)to & 3) == 0)
            count = fill_words(to, word, length);
        else
            for (size_t n = 0; n < count; n++, word >>= 8)
                to[n] = (uint8_t)word;
        to += count;
        from += count;
        length -= count;
    }
}
