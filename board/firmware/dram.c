/* Starts the board's DDR3 chip: what board/tiptoe_board/dram.py does over a bridge, step by step, with its numbers (dram.h, which
 * tiptoe_board.dram_header writes). The chip's mode registers, the delay and shift at which each lane reads right, then the
 * controller has the chip, and the memory is tested.
 *
 * Every wait ends: registers answer or LiteX's bus gives an error, which is a trap, and no loop here waits for the chip.
 * SPDX-License-Identifier: BSD-2-Clause
 */
#include "platform.h"

#ifndef CSR_SDRAM_BASE

bool platform_start_memory(void)
{
    return true;
}

#else

#include "dram.h"

enum {
    PHASE_BYTES = CSR_SDRAM_DFII_PI1_COMMAND_ADDR - CSR_SDRAM_DFII_PI0_COMMAND_ADDR, /* from a phase's registers to the next's */
    WORDS = DRAM_BEATS * DRAM_LANES / 4, /* of 32 bits in a phase, the upper first */
    ALL_LANES = (1 << DRAM_LANES) - 1,
    READ_US = 1                          /* more than a read takes from its command to its register */
};

struct tap {
    uint32_t shift, delay;
};

/* For each lane and shift a bit for each delay that reads right. */
struct scan {
    uint32_t right[DRAM_LANES][DRAM_BITSLIPS];
};

static uint32_t next_random(uint32_t *state) /* Marsaglia's xorshift */
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

/* ---- the chip in the program's hands ---- */

static void command(uint32_t flags, uint32_t address, uint32_t bank, uint32_t phase)
{
    const uintptr_t offset = phase * PHASE_BYTES;

    platform_write(CSR_SDRAM_DFII_PI0_ADDRESS_ADDR + offset, address);
    platform_write(CSR_SDRAM_DFII_PI0_BADDRESS_ADDR + offset, bank);
    platform_write(CSR_SDRAM_DFII_PI0_COMMAND_ADDR + offset, flags);
    platform_write(CSR_SDRAM_DFII_PI0_COMMAND_ISSUE_ADDR + offset, 1);
}

static void start_chip(void)
{
    static const struct {
        bool control;
        uint8_t flags;
        uint16_t address, bank, wait_us;
    } steps[] = {DRAM_STEPS};

    for (unsigned n = 0; n < sizeof steps / sizeof *steps; n++) {
        if (steps[n].control)
            platform_write(CSR_SDRAM_DFII_CONTROL_ADDR, steps[n].flags);
        else
            command(steps[n].flags, steps[n].address, steps[n].bank, 0);
        platform_wait_us(steps[n].wait_us);
    }
}

/* Set the lanes of a mask; then all strobes' counters are brought in step again, which ECP5 wants. */
static void set_tap(uint32_t lanes, struct tap tap)
{
    platform_write(CSR_DDRPHY_DLY_SEL_ADDR, lanes);
    platform_write(CSR_DDRPHY_RDLY_DQ_RST_ADDR, 1);
    while (tap.delay--)
        platform_write(CSR_DDRPHY_RDLY_DQ_INC_ADDR, 1);
    platform_write(CSR_DDRPHY_RDLY_DQ_BITSLIP_RST_ADDR, 1);
    while (tap.shift--)
        platform_write(CSR_DDRPHY_RDLY_DQ_BITSLIP_ADDR, 1);
    platform_write(CSR_DDRPHY_DLY_SEL_ADDR, 0);
    platform_write(CSR_DDRPHY_DLY_SEL_ADDR, ALL_LANES);
    platform_write(CSR_DDRPHY_DLY_SEL_ADDR, 0);
}

/* The lanes that read a random burst as it was written, and whose strobe was seen. */
static uint32_t reads_right(uint32_t seed)
{
    uint32_t written[DRAM_PHASES][WORDS], right;

    command(DRAM_ACTIVATE, 0, 0, 0);
    for (uint32_t phase = 0; phase < DRAM_PHASES; phase++)
        for (uint32_t word = 0; word < WORDS; word++) {
            written[phase][word] = next_random(&seed);
            platform_write(CSR_SDRAM_DFII_PI0_WRDATA_ADDR + phase * PHASE_BYTES + 4 * word, written[phase][word]);
        }
    command(DRAM_WRITE, 0, 0, DRAM_WRITE_PHASE);
    platform_write(CSR_DDRPHY_BURSTDET_CLR_ADDR, 1);
    command(DRAM_READ, 0, 0, DRAM_READ_PHASE);
    command(DRAM_PRECHARGE, DRAM_ALL_BANKS, 0, 0);
    platform_wait_us(READ_US);
    right = platform_read(CSR_DDRPHY_BURSTDET_SEEN_ADDR);
    for (uint32_t phase = 0; phase < DRAM_PHASES; phase++)
        for (uint32_t word = 0; word < WORDS; word++) {
            const uint32_t differs =
                written[phase][word] ^ platform_read(CSR_SDRAM_DFII_PI0_RDDATA_ADDR + phase * PHASE_BYTES + 4 * word);

            for (uint32_t byte = 0; byte < 4; byte++)
                if (differs >> 8 * byte & 0xff)
                    right &= ~(1u << byte % DRAM_LANES);
        }
    return right;
}

/* ---- where it is read ---- */

static void scan_all(struct scan *scan)
{
    for (uint32_t shift = 0; shift < DRAM_BITSLIPS; shift++) {
        for (uint32_t lane = 0; lane < DRAM_LANES; lane++)
            scan->right[lane][shift] = 0;
        for (uint32_t delay = 0; delay < DRAM_DELAYS; delay++) {
            uint32_t right;

            set_tap(ALL_LANES, (struct tap){shift, delay});
            right = reads_right(0x0f1e2d3c) & reads_right(0x4b5a6978);
            for (uint32_t lane = 0; lane < DRAM_LANES; lane++)
                scan->right[lane][shift] |= (right >> lane & 1) << delay;
        }
    }
}

/* The middle of a lane's longest run of delays; of two that are as long, the smaller shift's and delays'. Whether there is one. */
static bool find_tap(const uint32_t *right, struct tap *tap)
{
    uint32_t longest = 0;

    for (uint32_t shift = 0; shift < DRAM_BITSLIPS; shift++)
        for (uint32_t delay = 0, run = 0; delay < DRAM_DELAYS; delay++) {
            run = right[shift] >> delay & 1 ? run + 1 : 0;
            if (run > longest) {
                longest = run;
                *tap = (struct tap){shift, delay - run / 2}; /* its middle, if it ends here */
            }
        }
    return longest != 0;
}

static void print_number(const char *text, uint32_t number)
{
    const char digit[2] = {(char)('0' + number), 0}; /* lanes, shifts and delays are less than 10 */

    platform_print(text);
    platform_print(digit);
}

static void print_scan(const struct scan *scan)
{
    for (uint32_t lane = 0; lane < DRAM_LANES; lane++)
        for (uint32_t shift = 0; shift < DRAM_BITSLIPS; shift++) {
            print_number("lane ", lane);
            print_number(", shift ", shift);
            platform_print(": |");
            for (uint32_t delay = 0; delay < DRAM_DELAYS; delay++)
                platform_print(scan->right[lane][shift] >> delay & 1 ? "1" : "0");
            platform_print("|\n");
        }
}

static bool level(void)
{
    struct scan scan;
    struct tap taps[DRAM_LANES];

    scan_all(&scan);
    for (uint32_t lane = 0; lane < DRAM_LANES; lane++)
        if (!find_tap(scan.right[lane], &taps[lane])) {
            print_number("DDR3: lane ", lane);
            platform_print(" reads wrong at every delay. 1 is right:\n");
            print_scan(&scan);
            platform_print("All 0 on all lanes: the chip gives no answer (power, clock, another chip than boards.toml says).\n");
            return false;
        }
    for (uint32_t lane = 0; lane < DRAM_LANES; lane++) {
        print_number("DDR3: lane ", lane);
        print_number(", shift ", taps[lane].shift);
        print_number(", delay ", taps[lane].delay);
        platform_print("\n");
        set_tap(1u << lane, taps[lane]);
    }
    return true;
}

/* ---- what it keeps ---- */

/* The places of the test: 0 and each power of two, for address lines and ranks; then words in a row at the end, for data lines. */
enum {
    POWERS = 29 - __builtin_clz((unsigned)MEMORY_SIZE), /* from 4 on */
    PLACES = 1 + POWERS + DRAM_TEST_WORDS
};

static uint32_t place_of(uint32_t number)
{
    if (number <= POWERS)
        return number ? 2u << number : 0;
    return MEMORY_SIZE - 4 * (PLACES - number);
}

static bool keeps_words(void)
{
    uint32_t seed = MEMORY_SIZE, wrong = 0, bits = 0, first = 0, wrote = 0, read = 0;

    for (uint32_t n = 0; n < PLACES; n++)
        platform_write(MEMORY_BASE + place_of(n), next_random(&seed));
    seed = MEMORY_SIZE;
    for (uint32_t n = 0; n < PLACES; n++) {
        const uint32_t expected = next_random(&seed), found = platform_read(MEMORY_BASE + place_of(n));

        if (expected == found)
            continue;
        bits |= expected ^ found;
        if (!wrong++) {
            first = place_of(n);
            wrote = expected;
            read = found;
        }
    }
    if (!wrong)
        return true;
    platform_print_hex("DDR3: the memory does not keep what is written. Words that differ: ", wrong);
    platform_print_hex("  of ", PLACES);
    platform_print_hex("  in bits ", bits);
    platform_print_hex("  the first at ", first);
    platform_print_hex("  wrote ", wrote);
    platform_print_hex("  read ", read);
    return false;
}

bool platform_start_memory(void)
{
    start_chip();
    if (!level())
        return false;
    platform_write(CSR_SDRAM_DFII_CONTROL_ADDR, DRAM_CONTROLLER);
    return keeps_words();
}

#endif
