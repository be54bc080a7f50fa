/* Text without a C library.
 * SPDX-License-Identifier: BSD-2-Clause
 */
#include "apps.h"

void text_string(struct text *text, const char *string)
{
    for (; *string && text->length < text->room; string++)
        text->at[text->length++] = *string;
}

void text_number(struct text *text, uint64_t number)
{
    char digits[21];
    size_t at = sizeof digits - 1;

    digits[at] = 0;
    do {
        digits[--at] = (char)('0' + number % 10);
        number /= 10;
    } while (number);
    text_string(text, digits + at);
}

bool text_parse(const char **from, uint64_t *number)
{
    const char *at = *from;

    *number = 0;
    for (; *at >= '0' && *at <= '9'; at++) {
        *number = *number * 10 + (uint64_t)(*at - '0');
        if (*number >> 53)
            return false;
    }
    if (at == *from)
        return false;
    *from = at;
    return true;
}

static char small(char letter)
{
    return letter >= 'A' && letter <= 'Z' ? (char)(letter + 32) : letter;
}

bool text_begins(const char *string, const char *what)
{
    for (; *what; string++, what++)
        if (small(*string) != small(*what))
            return false;
    return true;
}
