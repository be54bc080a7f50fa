/* A bare driver for one TCP connection: docs/driver.md walks through it. C11; everything the hardware defines is in tiptoe.h.
 * SPDX-License-Identifier: BSD-2-Clause
 */
#include "connect.h"

#include <stdatomic.h>

#include "tiptoe.h"

enum {
    COMMANDS_LOG2 = 4, EVENTS_LOG2 = 6, FRAMES_LOG2 = 1, SND_LOG2 = 12, RCV_LOG2 = 14,
    /* Where they lie in memory, each aligned to its size. */
    COMMANDS = 0x0000, EVENTS = 0x0800, FRAMES = 0x1000, SND = 0x2000, RCV = 0x4000,
    TID = 1 << 16, /* connection id 0, its first generation */
    LAST_WORDS_US = 2000000
};

struct driver {
    const struct connect_device *device;
    const struct connect_settings *settings;
    uint64_t deadline;
    uint32_t commands, events, frames;  /* written, read, read: since reset, modulo 2^32 */
    uint32_t sent, acked;               /* positions of the send ring */
    uint32_t arrived, consumed;         /* and of the receive ring */
    uint32_t reason;                    /* of the end */
    int established, peer_closed, terminal;
    int failed, released;               /* a command was refused; RELEASE was answered */
};

static void write32(struct driver *d, uint32_t address, uint32_t value)
{
    d->device->write32(d->device->context, address, value);
}

static uint32_t read32(struct driver *d, uint32_t address)
{
    return d->device->read32(d->device->context, address);
}

static void note(struct driver *d, const char *what, uint32_t number)
{
    if (d->device->note)
        d->device->note(d->device->context, what, number);
}

/* ---- command ring ---- */

static void command(struct driver *d, uint32_t *dwords, uint32_t opcode)
{
    volatile uint8_t *entry =
        d->device->memory + COMMANDS + TIPTOE_COMMAND_BYTES * (d->commands & ((1u << COMMANDS_LOG2) - 1));

    TIPTOE_PUT(dwords, TIPTOE_CMD_HEADER_OPCODE, opcode);
    for (uint32_t i = 0; i < TIPTOE_COMMAND_BYTES; i++)
        entry[i] = (uint8_t)(dwords[i / 4] >> (i % 4 * 8)); /* little endian, whatever we are */
    write32(d, TIPTOE_REG_COMMAND_TAIL, ++d->commands);     /* five commands in all: the ring cannot be full */
}

/* ---- event ring ---- */

static int next_event(struct driver *d, uint32_t *dwords)
{
    volatile uint8_t *entry =
        d->device->memory + EVENTS + TIPTOE_EVENT_BYTES * (d->events & ((1u << EVENTS_LOG2) - 1));
    uint32_t phase = ~(d->events >> EVENTS_LOG2) & 1; /* 1 on the first pass over the ring, 0 on the second */

    if (entry[TIPTOE_EVENT_PHASE_DWORD * 4 + 3] >> 7 != phase)
        return 0;
    atomic_thread_fence(memory_order_acquire); /* the phase is read before the rest */
    for (uint32_t i = 0; i < TIPTOE_EVENT_BYTES / 4; i++)
        dwords[i] = entry[4 * i] | (uint32_t)entry[4 * i + 1] << 8 | (uint32_t)entry[4 * i + 2] << 16 |
                    (uint32_t)entry[4 * i + 3] << 24;
    d->events++;
    return 1;
}

static void connection_event(struct driver *d, const uint32_t *e)
{
    if (TIPTOE_GET(e, TIPTOE_EVT_CONNECTION_TID) != TID)
        return;
    if (TIPTOE_GET(e, TIPTOE_EVT_CONNECTION_ESTABLISHED)) {
        if (!d->established)
            note(d, "established, largest segment", TIPTOE_GET(e, TIPTOE_EVT_CONNECTION_MSS));
        d->established = 1;
        d->peer_closed = (int)TIPTOE_GET(e, TIPTOE_EVT_CONNECTION_PEER_CLOSED);
        d->acked = TIPTOE_GET(e, TIPTOE_EVT_CONNECTION_SND_UNA_POSITION);
        /* The peer's FIN counts as one, but is no byte of the ring. */
        d->arrived = TIPTOE_GET(e, TIPTOE_EVT_CONNECTION_RCV_POSITION) - (uint32_t)d->peer_closed;
    }
    if (TIPTOE_GET(e, TIPTOE_EVT_CONNECTION_TERMINAL)) {
        d->terminal = 1;
        d->reason = TIPTOE_GET(e, TIPTOE_EVT_CONNECTION_REASON);
        note(d, "the end, reason", d->reason);
    }
}

static void command_done(struct driver *d, uint32_t opcode, uint32_t status)
{
    d->released |= opcode == TIPTOE_OPCODE_RELEASE;
    if (status == TIPTOE_STATUS_OK)
        return;
    note(d, "refused, command", opcode);
    /* CLOSE and ABORT are refused when the connection has ended meanwhile: its terminal event is on the way. */
    if (opcode != TIPTOE_OPCODE_CLOSE && opcode != TIPTOE_OPCODE_ABORT)
        d->failed = 1;
}

static void handle(struct driver *d, const uint32_t *e)
{
    switch (TIPTOE_GET(e, TIPTOE_EVT_TRAILER_TYPE)) {
    case TIPTOE_EVENT_CONNECTION:
        connection_event(d, e);
        break;
    case TIPTOE_EVENT_COMMAND_DONE:
        command_done(d, TIPTOE_GET(e, TIPTOE_EVT_COMMAND_DONE_OPCODE), TIPTOE_GET(e, TIPTOE_EVT_COMMAND_DONE_STATUS));
        break;
    case TIPTOE_EVENT_FRAME: /* not for a connection (ARP, ping): its slot is free again at once */
        write32(d, TIPTOE_REG_FRAME_CONSUMER, ++d->frames);
        break;
    case TIPTOE_EVENT_ERROR:
        note(d, "error", TIPTOE_GET(e, TIPTOE_EVT_ERROR_CODE));
        break;
    }
}

/* Handle the events that wait; when there are none, let time pass until there may be some. */
static enum connect_result pump(struct driver *d)
{
    uint32_t event[TIPTOE_EVENT_BYTES / 4], before = d->events;
    uint64_t now;

    while (next_event(d, event))
        handle(d, event);
    if (d->events != before) {
        write32(d, TIPTOE_REG_EVENT_CONSUMER, d->events);
        /* Only now: an event that has come meanwhile sets it again. */
        write32(d, TIPTOE_REG_IRQ_STATUS, TIPTOE_IRQ_STATUS_EVENT_MASK | TIPTOE_IRQ_STATUS_ERROR_MASK);
        return CONNECT_OK;
    }
    now = d->device->now_us(d->device->context);
    if (now >= d->deadline)
        return CONNECT_TIMEOUT;
    return d->device->wait(d->device->context, (uint32_t)(d->deadline - now)) < 0 ? CONNECT_DEVICE : CONNECT_OK;
}

/* ---- bring-up ---- */

static void ring_address(struct driver *d, uint32_t register_lo, uint32_t offset)
{
    write32(d, register_lo, (uint32_t)(d->device->address + offset));
    write32(d, register_lo + 4, (uint32_t)((d->device->address + offset) >> 32));
}

static enum connect_result bring_up(struct driver *d)
{
    const struct connect_settings *s = d->settings;
    uint32_t tries, n;

    if (read32(d, TIPTOE_REG_ID) != TIPTOE_ID_VALUE ||
        (read32(d, TIPTOE_REG_VERSION) ^ TIPTOE_VERSION_VALUE) & TIPTOE_VERSION_MAJOR_MASK)
        return CONNECT_NO_ENGINE;
    write32(d, TIPTOE_REG_IRQ_MASK, 0);
    write32(d, TIPTOE_REG_CONTROL, TIPTOE_CONTROL_SOFT_RESET_MASK);
    for (tries = 0; read32(d, TIPTOE_REG_CONTROL) & TIPTOE_CONTROL_SOFT_RESET_MASK ||
                    !(read32(d, TIPTOE_REG_STATUS) & TIPTOE_STATUS_READY_MASK); tries++)
        if (tries == 1000 || d->device->wait(d->device->context, 100) < 0)
            return CONNECT_NOT_READY;
    for (n = 0; n < TIPTOE_EVENT_BYTES << EVENTS_LOG2; n++)
        d->device->memory[EVENTS + n] = 0; /* the first pass writes phase 1 */

    write32(d, TIPTOE_REG_MAC_LO, (uint32_t)s->mac);
    write32(d, TIPTOE_REG_MAC_HI, (uint32_t)(s->mac >> 32));
    write32(d, TIPTOE_REG_IP_ADDR, s->ip);
    write32(d, TIPTOE_REG_TICK_CYCLES, s->tick_cycles);
    for (n = 0; n < TIPTOE_REG_ISN_KEY_COUNT; n++)
        write32(d, TIPTOE_REG_ISN_KEY + 4 * n, s->secret[n]);
    for (n = 0; n < TIPTOE_REG_HASH_KEY_COUNT; n++)
        write32(d, TIPTOE_REG_HASH_KEY + 4 * n, s->secret[TIPTOE_REG_ISN_KEY_COUNT + n]);
    ring_address(d, TIPTOE_REG_COMMAND_RING_LO, COMMANDS);
    ring_address(d, TIPTOE_REG_EVENT_RING_LO, EVENTS);
    ring_address(d, TIPTOE_REG_FRAME_RING_LO, FRAMES);
    write32(d, TIPTOE_REG_COMMAND_RING_LOG2, COMMANDS_LOG2);
    write32(d, TIPTOE_REG_EVENT_RING_LOG2, EVENTS_LOG2);
    write32(d, TIPTOE_REG_FRAME_RING_LOG2, FRAMES_LOG2);
    write32(d, TIPTOE_REG_IRQ_STATUS, TIPTOE_IRQ_STATUS_EVENT_MASK | TIPTOE_IRQ_STATUS_ERROR_MASK);
    write32(d, TIPTOE_REG_IRQ_MASK, TIPTOE_IRQ_MASK_EVENT_MASK | TIPTOE_IRQ_MASK_ERROR_MASK);
    write32(d, TIPTOE_REG_CONTROL, TIPTOE_CONTROL_ENABLE_MASK | TIPTOE_CONTROL_RST_UNKNOWN_MASK | TIPTOE_CONTROL_SACK_MASK);
    return CONNECT_OK;
}

/* ---- the connection ---- */

static void open_connection(struct driver *d)
{
    const struct connect_settings *s = d->settings;
    uint32_t limits = read32(d, TIPTOE_REG_LIMITS);
    uint32_t frame = (limits & TIPTOE_LIMITS_MAX_FRAME_BYTES_MASK) >> TIPTOE_LIMITS_MAX_FRAME_BYTES_SHIFT;
    uint32_t provision[TIPTOE_COMMAND_BYTES / 4] = {0}, open[TIPTOE_COMMAND_BYTES / 4] = {0};

    TIPTOE_PUT(provision, TIPTOE_CMD_PROVISION_TID, TID);
    TIPTOE_PUT64(provision, TIPTOE_CMD_PROVISION_SND_BASE, d->device->address + SND);
    TIPTOE_PUT64(provision, TIPTOE_CMD_PROVISION_RCV_BASE, d->device->address + RCV);
    TIPTOE_PUT(provision, TIPTOE_CMD_PROVISION_SND_LOG2, SND_LOG2);
    TIPTOE_PUT(provision, TIPTOE_CMD_PROVISION_RCV_LOG2, RCV_LOG2);
    command(d, provision, TIPTOE_OPCODE_PROVISION);

    TIPTOE_PUT(open, TIPTOE_CMD_OPEN_TID, TID);
    TIPTOE_PUT(open, TIPTOE_CMD_OPEN_LADDR, s->ip);
    TIPTOE_PUT(open, TIPTOE_CMD_OPEN_FADDR, s->server_ip);
    TIPTOE_PUT(open, TIPTOE_CMD_OPEN_LPORT, s->port);
    TIPTOE_PUT(open, TIPTOE_CMD_OPEN_FPORT, s->server_port);
    TIPTOE_PUT64(open, TIPTOE_CMD_OPEN_DMAC, s->next_hop_mac);
    TIPTOE_PUT(open, TIPTOE_CMD_OPEN_MSS, frame - 54); /* Ethernet, IPv4 and TCP headers; a ring below 64 KiB needs no scale */
    command(d, open, TIPTOE_OPCODE_OPEN);
    note(d, "OPEN of port", s->server_port);
}

/* As much of the request as the send ring has room for. */
static void push(struct driver *d, const uint8_t *request, size_t length)
{
    uint32_t before = d->sent;

    while (d->sent < length && d->sent - d->acked < 1u << SND_LOG2) {
        d->device->memory[SND + (d->sent & ((1u << SND_LOG2) - 1))] = request[d->sent];
        d->sent++;
    }
    if (d->sent != before) {
        write32(d, TIPTOE_DOORBELL_SND(TID & 0xffff), d->sent);
        note(d, "send doorbell", d->sent);
    }
}

/* What has arrived; its place in the ring goes back to the peer as window. */
static enum connect_result pull(struct driver *d, uint8_t *answer, size_t room)
{
    if (d->consumed == d->arrived)
        return CONNECT_OK;
    for (; d->consumed != d->arrived; d->consumed++) {
        if (d->consumed >= room)
            return CONNECT_TOO_LONG;
        answer[d->consumed] = d->device->memory[RCV + (d->consumed & ((1u << RCV_LOG2) - 1))];
    }
    write32(d, TIPTOE_DOORBELL_RCV(TID & 0xffff), d->consumed);
    note(d, "receive doorbell", d->consumed);
    return CONNECT_OK;
}

static enum connect_result why(struct driver *d)
{
    switch (d->reason) {
    case TIPTOE_REASON_NORMAL: return CONNECT_OK;
    case TIPTOE_REASON_REFUSED: return CONNECT_REFUSED;
    case TIPTOE_REASON_TIMEOUT: return CONNECT_TIMEOUT;
    case TIPTOE_REASON_DMA_ERROR: return CONNECT_MEMORY;
    default: return CONNECT_RESET;
    }
}

static enum connect_result converse(struct driver *d, const uint8_t *request, size_t length, uint8_t *answer, size_t room)
{
    uint32_t close[TIPTOE_COMMAND_BYTES / 4] = {0};
    enum connect_result result = CONNECT_OK;
    int closed = 0;

    open_connection(d);
    while (!result && !d->terminal && !d->failed) {
        result = pump(d);
        if (!result && d->established && !d->terminal) {
            push(d, request, length);
            result = pull(d, answer, room);
        }
        if (!result && d->peer_closed && !closed) {
            TIPTOE_PUT(close, TIPTOE_CMD_CLOSE_TID, TID);
            TIPTOE_PUT(close, TIPTOE_CMD_CLOSE_SND_END, d->sent);
            command(d, close, TIPTOE_OPCODE_CLOSE);
            note(d, "CLOSE at", d->sent);
            closed = 1;
        }
    }
    return result ? result : d->failed ? CONNECT_COMMAND : why(d);
}

/* Whatever has happened: the id goes back, and the engine lets go of the rings. */
static enum connect_result finish(struct driver *d)
{
    uint32_t abort[TIPTOE_COMMAND_BYTES / 4] = {0}, release[TIPTOE_COMMAND_BYTES / 4] = {0};
    enum connect_result result = CONNECT_OK;

    d->deadline = d->device->now_us(d->device->context) + LAST_WORDS_US;
    if (!d->terminal && !d->failed) {
        TIPTOE_PUT(abort, TIPTOE_CMD_ABORT_TID, TID);
        command(d, abort, TIPTOE_OPCODE_ABORT);
        while (!result && !d->terminal)
            result = pump(d);
    }
    TIPTOE_PUT(release, TIPTOE_CMD_RELEASE_TID, TID);
    TIPTOE_PUT(release, TIPTOE_CMD_RELEASE_LADDR, d->settings->ip);
    TIPTOE_PUT(release, TIPTOE_CMD_RELEASE_FADDR, d->settings->server_ip);
    TIPTOE_PUT(release, TIPTOE_CMD_RELEASE_LPORT, d->settings->port);
    TIPTOE_PUT(release, TIPTOE_CMD_RELEASE_FPORT, d->settings->server_port);
    command(d, release, TIPTOE_OPCODE_RELEASE);
    while (!result && !d->released)
        result = pump(d);
    if (d->released && !d->failed)
        note(d, "released, tid", TID);
    return result ? result : d->failed ? CONNECT_COMMAND : CONNECT_OK;
}

enum connect_result connect_fetch(const struct connect_device *device, const struct connect_settings *settings,
                                  const uint8_t *request, size_t request_length,
                                  uint8_t *answer, size_t room, size_t *length)
{
    struct driver d = {.device = device, .settings = settings};
    enum connect_result result, last;

    *length = 0;
    d.deadline = device->now_us(device->context) + settings->timeout_us;
    result = bring_up(&d);
    if (result)
        return result;
    result = converse(&d, request, request_length, answer, room);
    *length = d.consumed;
    last = result == CONNECT_DEVICE ? result : finish(&d);
    write32(&d, TIPTOE_REG_CONTROL, 0);
    return result ? result : last;
}
