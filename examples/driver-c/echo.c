/* A driver of one connection, from reset to RELEASE: `tiptoe serve --socket PATH`, then `./echo PATH`.
 *
 * It sends bytes to the echo server at the other end of the engine's line and compares what comes back. What it knows of the
 * engine is in tiptoe.h. driver/c is a whole driver: many connections, listeners, ARP, all that can go wrong.
 * SPDX-License-Identifier: BSD-2-Clause
 */
#include "seam.h"
#include "tiptoe.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Where things lie in host memory; each ring is aligned to its size. */
enum {
    COMMANDS = 0x0000, COMMANDS_LOG2 = 6,
    EVENTS = 0x2000, EVENTS_LOG2 = 6,
    FRAMES = 0x8000, FRAMES_LOG2 = 3,
    SND = 0x10000, RCV = 0x14000, RING_LOG2 = 14, RING = 1 << RING_LOG2,
    ECHO_PORT = 7, TAG_RELEASE = 1,
    LENGTH = 100000
};
static const uint64_t PATIENCE_US = 10000000;

struct driver {
    struct seam seam;
    uint32_t commands, events, frames;
    /* The connection, with id 0. */
    uint32_t tid, sent, acknowledged, arrived, consumed;
    uint16_t port;
    bool established, over, released;
};

static void fail(const char *what, unsigned number)
{
    fprintf(stderr, "error: %s (%u)\n", what, number);
    exit(1);
}

static void bring_up(struct driver *d)
{
    struct seam *s = &d->seam;
    static const uint8_t nothing[TIPTOE_EVENT_BYTES << EVENTS_LOG2];

    if (seam_read(s, TIPTOE_REG_ID) != TIPTOE_ID_VALUE)
        fail("there is no Tiptoe engine", 0);
    seam_write(s, TIPTOE_REG_IRQ_MASK, 0);
    seam_write(s, TIPTOE_REG_CONTROL, TIPTOE_CONTROL_SOFT_RESET_MASK);
    while (seam_read(s, TIPTOE_REG_CONTROL) & TIPTOE_CONTROL_SOFT_RESET_MASK ||
           !(seam_read(s, TIPTOE_REG_STATUS) & TIPTOE_STATUS_READY_MASK))
        seam_wait(s, 100, NULL);
    seam_store(s, EVENTS, nothing, sizeof nothing); /* what lies there is no event */
    seam_write(s, TIPTOE_REG_MAC_LO, (uint32_t)s->mac);
    seam_write(s, TIPTOE_REG_MAC_HI, (uint32_t)(s->mac >> 32));
    seam_write(s, TIPTOE_REG_IP_ADDR, s->ip);
    seam_write(s, TIPTOE_REG_MSL_TICKS, 100);
    for (uint32_t n = 0; n < TIPTOE_REG_ISN_KEY_COUNT; n++)
        seam_write(s, TIPTOE_REG_ISN_KEY + 4 * n, (uint32_t)rand());
    for (uint32_t n = 0; n < TIPTOE_REG_HASH_KEY_COUNT; n++)
        seam_write(s, TIPTOE_REG_HASH_KEY + 4 * n, (uint32_t)rand());
    seam_write(s, TIPTOE_REG_COMMAND_RING_LO, COMMANDS);
    seam_write(s, TIPTOE_REG_COMMAND_RING_LOG2, COMMANDS_LOG2);
    seam_write(s, TIPTOE_REG_EVENT_RING_LO, EVENTS);
    seam_write(s, TIPTOE_REG_EVENT_RING_LOG2, EVENTS_LOG2);
    seam_write(s, TIPTOE_REG_FRAME_RING_LO, FRAMES);
    seam_write(s, TIPTOE_REG_FRAME_RING_LOG2, FRAMES_LOG2);
    seam_write(s, TIPTOE_REG_IRQ_STATUS, TIPTOE_IRQ_STATUS_EVENT_MASK | TIPTOE_IRQ_STATUS_ERROR_MASK);
    seam_write(s, TIPTOE_REG_IRQ_MASK, TIPTOE_IRQ_MASK_EVENT_MASK | TIPTOE_IRQ_MASK_ERROR_MASK);
    /* The clock of TCP's timers is the engine's input `tick`, a pulse a millisecond. */
    seam_write(s, TIPTOE_REG_CONTROL, TIPTOE_CONTROL_ENABLE_MASK | TIPTOE_CONTROL_EXTERNAL_TICK_MASK |
                                          TIPTOE_CONTROL_RST_UNKNOWN_MASK | TIPTOE_CONTROL_SACK_MASK);
}

/* Write a command, then tell the engine how many there have been. */
static void post(struct driver *d, const uint32_t *dwords)
{
    uint8_t entry[TIPTOE_COMMAND_BYTES];

    for (unsigned n = 0; n < TIPTOE_COMMAND_BYTES; n++)
        entry[n] = (uint8_t)(dwords[n / 4] >> 8 * (n % 4));
    seam_store(&d->seam, COMMANDS + d->commands % (1u << COMMANDS_LOG2) * TIPTOE_COMMAND_BYTES, entry, sizeof entry);
    seam_write(&d->seam, TIPTOE_REG_COMMAND_TAIL, ++d->commands);
}

static void handle(struct driver *d, const uint32_t *e)
{
    switch (TIPTOE_GET(e, TIPTOE_EVT_TRAILER_TYPE)) {
    case TIPTOE_EVENT_CONNECTION:
        if (TIPTOE_GET(e, TIPTOE_EVT_CONNECTION_REASON) > TIPTOE_REASON_NORMAL)
            fail("the connection has failed: enum tiptoe_reason", TIPTOE_GET(e, TIPTOE_EVT_CONNECTION_REASON));
        d->established |= TIPTOE_GET(e, TIPTOE_EVT_CONNECTION_ESTABLISHED);
        d->over |= TIPTOE_GET(e, TIPTOE_EVT_CONNECTION_TERMINAL);
        d->acknowledged = TIPTOE_GET(e, TIPTOE_EVT_CONNECTION_SND_UNA_POSITION);
        d->arrived = TIPTOE_GET(e, TIPTOE_EVT_CONNECTION_RCV_POSITION) -
                     TIPTOE_GET(e, TIPTOE_EVT_CONNECTION_PEER_CLOSED); /* the peer's FIN counts as a byte */
        break;
    case TIPTOE_EVENT_COMMAND_DONE:
        if (TIPTOE_GET(e, TIPTOE_EVT_COMMAND_DONE_STATUS) != TIPTOE_STATUS_OK)
            fail("a command is refused: enum tiptoe_status", TIPTOE_GET(e, TIPTOE_EVT_COMMAND_DONE_STATUS));
        d->released |= TIPTOE_GET(e, TIPTOE_EVT_COMMAND_DONE_TAG) == TAG_RELEASE;
        break;
    case TIPTOE_EVENT_ERROR:
        fail("the engine reports enum tiptoe_error", TIPTOE_GET(e, TIPTOE_EVT_ERROR_CODE));
        break;
    case TIPTOE_EVENT_FRAME: /* nothing to us: ARP is not needed here */
        d->frames++;
        break;
    }
}

/* Handle what has come; whether anything has. An entry is new when its phase is that of the pass over the ring. */
static bool poll_events(struct driver *d)
{
    const uint32_t before = d->events;

    for (;;) {
        const uint32_t at = d->events % (1u << EVENTS_LOG2) * TIPTOE_EVENT_BYTES;
        uint8_t entry[TIPTOE_EVENT_BYTES];
        uint32_t dwords[TIPTOE_EVENT_BYTES / 4] = {0};

        seam_load(&d->seam, EVENTS + at, entry, sizeof entry);
        for (unsigned n = 0; n < TIPTOE_EVENT_BYTES; n++)
            dwords[n / 4] |= (uint32_t)entry[n] << 8 * (n % 4);
        if (dwords[TIPTOE_EVENT_PHASE_DWORD] >> TIPTOE_EVENT_PHASE_SHIFT == (d->events >> EVENTS_LOG2 & 1))
            break;
        d->events++;
        handle(d, dwords);
    }
    if (d->events != before) {
        seam_write(&d->seam, TIPTOE_REG_EVENT_CONSUMER, d->events);
        seam_write(&d->seam, TIPTOE_REG_FRAME_CONSUMER, d->frames);
    }
    /* Behind EVENT_CONSUMER: an event that has come meanwhile sets it again. */
    seam_write(&d->seam, TIPTOE_REG_IRQ_STATUS, TIPTOE_IRQ_STATUS_EVENT_MASK | TIPTOE_IRQ_STATUS_ERROR_MASK);
    return d->events != before;
}

/* Let time pass until there is news. */
static void next(struct driver *d, const char *what)
{
    const uint64_t end = seam_wait(&d->seam, 0, NULL) + PATIENCE_US;

    while (!poll_events(d)) {
        const uint64_t now = seam_wait(&d->seam, 0, NULL);

        if (now >= end)
            fail(what, (unsigned)PATIENCE_US);
        seam_wait(&d->seam, end - now, NULL);
    }
}

static void connect_to(struct driver *d, uint16_t peer_port)
{
    uint32_t provision[TIPTOE_COMMAND_BYTES / 4] = {0}, open[TIPTOE_COMMAND_BYTES / 4] = {0};

    d->tid = 1u << 16; /* id 0, generation 1 */
    TIPTOE_PUT(provision, TIPTOE_CMD_HEADER_OPCODE, TIPTOE_OPCODE_PROVISION);
    TIPTOE_PUT(provision, TIPTOE_CMD_PROVISION_TID, d->tid);
    TIPTOE_PUT64(provision, TIPTOE_CMD_PROVISION_SND_BASE, SND);
    TIPTOE_PUT64(provision, TIPTOE_CMD_PROVISION_RCV_BASE, RCV);
    TIPTOE_PUT(provision, TIPTOE_CMD_PROVISION_SND_LOG2, RING_LOG2);
    TIPTOE_PUT(provision, TIPTOE_CMD_PROVISION_RCV_LOG2, RING_LOG2);
    post(d, provision);
    TIPTOE_PUT(open, TIPTOE_CMD_HEADER_OPCODE, TIPTOE_OPCODE_OPEN);
    TIPTOE_PUT(open, TIPTOE_CMD_OPEN_TID, d->tid);
    TIPTOE_PUT(open, TIPTOE_CMD_OPEN_LADDR, d->seam.ip);
    TIPTOE_PUT(open, TIPTOE_CMD_OPEN_FADDR, d->seam.peer_ip);
    TIPTOE_PUT(open, TIPTOE_CMD_OPEN_LPORT, d->port);
    TIPTOE_PUT(open, TIPTOE_CMD_OPEN_FPORT, peer_port);
    TIPTOE_PUT64(open, TIPTOE_CMD_OPEN_DMAC, d->seam.peer_mac);
    TIPTOE_PUT(open, TIPTOE_CMD_OPEN_MSS, 1460);
    post(d, open);
    while (!d->established)
        next(d, "no connection");
}

/* As much as the send ring has room for, told by the doorbell. */
static uint32_t send_some(struct driver *d, const uint8_t *data, uint32_t length)
{
    const uint32_t room = RING - (d->sent - d->acknowledged), at = d->sent % RING;
    uint32_t first;

    length = length < room ? length : room;
    first = length < RING - at ? length : RING - at;
    seam_store(&d->seam, SND + at, data, first);
    seam_store(&d->seam, SND, data + first, length - first);
    d->sent += length;
    seam_write(&d->seam, TIPTOE_DOORBELL_SND(0), d->sent);
    return length;
}

/* What has arrived; its place in the ring goes back to the peer as window. */
static uint32_t receive_some(struct driver *d, uint8_t *data)
{
    const uint32_t length = d->arrived - d->consumed, at = d->consumed % RING;
    const uint32_t first = length < RING - at ? length : RING - at;

    seam_load(&d->seam, RCV + at, data, first);
    seam_load(&d->seam, RCV, data + first, length - first);
    d->consumed = d->arrived;
    seam_write(&d->seam, TIPTOE_DOORBELL_RCV(0), d->consumed);
    return length;
}

/* FIN behind what was sent, then the end of both directions, then the id comes back. */
static void close_it(struct driver *d, uint16_t peer_port)
{
    uint32_t end[TIPTOE_COMMAND_BYTES / 4] = {0}, release[TIPTOE_COMMAND_BYTES / 4] = {0};

    TIPTOE_PUT(end, TIPTOE_CMD_HEADER_OPCODE, TIPTOE_OPCODE_CLOSE);
    TIPTOE_PUT(end, TIPTOE_CMD_CLOSE_TID, d->tid);
    TIPTOE_PUT(end, TIPTOE_CMD_CLOSE_SND_END, d->sent);
    post(d, end);
    while (!d->over)
        next(d, "no end of the connection");
    TIPTOE_PUT(release, TIPTOE_CMD_HEADER_OPCODE, TIPTOE_OPCODE_RELEASE);
    TIPTOE_PUT(release, TIPTOE_CMD_HEADER_TAG, TAG_RELEASE);
    TIPTOE_PUT(release, TIPTOE_CMD_RELEASE_TID, d->tid);
    TIPTOE_PUT(release, TIPTOE_CMD_RELEASE_LADDR, d->seam.ip);
    TIPTOE_PUT(release, TIPTOE_CMD_RELEASE_FADDR, d->seam.peer_ip);
    TIPTOE_PUT(release, TIPTOE_CMD_RELEASE_LPORT, d->port);
    TIPTOE_PUT(release, TIPTOE_CMD_RELEASE_FPORT, peer_port);
    post(d, release);
    while (!d->released)
        next(d, "no answer to RELEASE");
}

int main(int argc, char **argv)
{
    static uint8_t data[LENGTH], came[LENGTH + RING];
    struct driver d = {0};
    uint32_t sent = 0, back = 0;

    if (argc != 2) {
        fprintf(stderr, "usage: %s SOCKET\n", argv[0]);
        return 2;
    }
    srand((unsigned)time(NULL)); /* a driver for a network takes its keys from a random number generator */
    for (uint32_t n = 0; n < LENGTH; n++)
        data[n] = (uint8_t)rand();
    d.port = (uint16_t)(49152 + rand() % 16384);
    seam_open(&d.seam, argv[1]);
    bring_up(&d);
    connect_to(&d, ECHO_PORT);
    while (back < LENGTH) {
        sent += send_some(&d, data + sent, LENGTH - sent);
        next(&d, "no echo");
        back += receive_some(&d, came + back);
    }
    close_it(&d, ECHO_PORT);
    if (memcmp(data, came, LENGTH))
        fail("the echo is another", 0);
    printf("%d bytes there and back in %.1f ms of the engine's time\n", LENGTH, (double)seam_wait(&d.seam, 0, NULL) / 1000);
    seam_close(&d.seam);
    return 0;
}
