/* The driver of driver/c on the simulated engine: `tiptoe serve --socket PATH`, then `./toe_echo PATH`.
 *
 * The seam is its platform: registers are messages; memory is a copy here, as a cache would have it, that `fence` writes back and
 * `invalidate` reads anew. It sends bytes to the echo server at the other end of the engine's line and compares what comes back.
 * SPDX-License-Identifier: BSD-2-Clause
 */
#include "seam.h"
#include "toe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    CONNECTIONS = 4, SND_LOG2 = 12, RCV_LOG2 = 13, COMMAND_LOG2 = 6, EVENT_LOG2 = 6, FRAME_LOG2 = 3,
    ADDRESS = 1 << 20, /* of the driver's memory, as the engine sees it */
    BYTES = TOE_MEMORY_BYTES(CONNECTIONS, SND_LOG2, RCV_LOG2, COMMAND_LOG2, EVENT_LOG2, FRAME_LOG2),
    LINE = 64,         /* bytes that are written back at once */
    ECHO_PORT = 7, LENGTH = 100000
};
static const uint64_t PATIENCE_US = 60000000, ROUND_US = 5000;

static uint8_t memory[BYTES], written_back[BYTES];
static uint8_t data[LENGTH], came[LENGTH];
static size_t sent, back;
static unsigned told;

/* ---- the platform ---- */

static void write32(void *seam, uint32_t address, uint32_t value)
{
    seam_write(seam, address, value);
}

static uint32_t read32(void *seam, uint32_t address)
{
    return seam_read(seam, address);
}

static uint64_t now_us(void *seam)
{
    return seam_wait(seam, 0, NULL);
}

static void fence(void *seam)
{
    for (size_t at = 0; at < BYTES; at += LINE) {
        const size_t length = BYTES - at < LINE ? BYTES - at : LINE;
        size_t from = 0, to = length;

        if (!memcmp(memory + at, written_back + at, length))
            continue;
        /* What was written, no more: bytes beside it may be the engine's. */
        while (memory[at + from] == written_back[at + from])
            from++;
        while (memory[at + to - 1] == written_back[at + to - 1])
            to--;
        seam_store(seam, ADDRESS + at + from, memory + at + from, to - from);
        memcpy(written_back + at, memory + at, length);
    }
}

static void invalidate(void *seam, const volatile void *from, size_t bytes)
{
    const size_t at = (size_t)((const uint8_t *)from - memory);

    seam_load(seam, ADDRESS + at, memory + at, bytes);
    memcpy(written_back + at, memory + at, bytes);
}

/* ---- the application ---- */

static void handle(struct toe_connection *c, unsigned what)
{
    told |= what;
    sent += toe_send(c, data + sent, LENGTH - sent);
    back += toe_receive(c, came + back, LENGTH - back);
    if (back == LENGTH)
        toe_shutdown(c);
}

static void fail(const char *what, unsigned number)
{
    fprintf(stderr, "error: %s (%u)\n", what, number);
    exit(1);
}

int main(int argc, char **argv)
{
    static struct toe_connection connections[CONNECTIONS];
    static struct toe toe;
    struct toe_connection *c;
    struct seam seam;
    enum toe_error error;
    uint64_t end;

    if (argc != 2) {
        fprintf(stderr, "usage: %s SOCKET\n", argv[0]);
        return 2;
    }
    srand((unsigned)time(NULL));
    for (size_t n = 0; n < LENGTH; n++)
        data[n] = (uint8_t)rand();
    seam_open(&seam, argv[1]);
    seam_store(&seam, ADDRESS, memory, BYTES); /* the copies are alike from here on */

    struct toe_device device = {
        .context = &seam, .write32 = write32, .read32 = read32, .now_us = now_us, .fence = fence, .invalidate = invalidate,
        .memory = memory, .address = ADDRESS, .bytes = BYTES,
    };
    struct toe_config config = {
        .mac = seam.mac, .ip = seam.ip, .netmask = 0xffffff00, .connections = connections, .connection_count = CONNECTIONS,
        .command_log2 = COMMAND_LOG2, .event_log2 = EVENT_LOG2, .frame_log2 = FRAME_LOG2, .snd_log2 = SND_LOG2,
        .rcv_log2 = RCV_LOG2, .interrupts = true, .time_wait_ms = 100,
    };
    for (size_t n = 0; n < sizeof config.secret / sizeof *config.secret; n++)
        config.secret[n] = (uint32_t)rand(); /* on a network: a random number generator's */

    if ((error = toe_start(&toe, &device, &config)) != TOE_OK)
        fail("the driver does not start: enum toe_error", error);
    if ((error = toe_connect(&toe, 0, seam.peer_ip, ECHO_PORT, handle, NULL, &c)) != TOE_OK)
        fail("no connection: enum toe_error", error);
    end = now_us(&seam) + PATIENCE_US;
    while (!(told & TOE_ENDED) && now_us(&seam) < end) {
        toe_poll(&toe);
        seam_wait(&seam, ROUND_US, NULL);
    }
    if (!(told & TOE_ENDED) || (error = toe_status(c)) != TOE_OK)
        fail("the connection has failed: enum toe_error", toe_status(c));
    toe_close(c);
    while (toe_in_use(&toe) && now_us(&seam) < end) {
        toe_poll(&toe);
        seam_wait(&seam, ROUND_US, NULL);
    }
    if (toe_in_use(&toe) || memcmp(data, came, LENGTH))
        fail("the echo is another, or an id does not come back", toe_in_use(&toe));
    printf("%d bytes there and back in %.1f ms of the engine's time\n", LENGTH, (double)now_us(&seam) / 1000);
    seam_close(&seam);
    return 0;
}
