/* What the driver's files know of each other.
 * SPDX-License-Identifier: BSD-2-Clause
 */
#ifndef TOE_INTERNAL_H
#define TOE_INTERNAL_H

#include "toe.h"

/* Of freestanding C the compiler may call these, and so do we. */
void *memcpy(void *restrict to, const void *restrict from, size_t bytes);
void *memset(void *to, int value, size_t bytes);
int memcmp(const void *a, const void *b, size_t bytes);

enum connection_flag {
    PROVISIONED = 1,     /* the engine has the id and its rings */
    STOCKED = 2,         /* for a passive open */
    ATTACHED = 4,        /* the application's */
    EVENTS_PENDING = 8,  /* the engine may speak of it: from OPEN or accept to the terminal event */
    OPENED = 16,         /* its handshake is complete */
    PEER_CLOSED = 32,
    FIN_WANTED = 64,
    FIN_SENT = 128,      /* CLOSE was posted */
    ABORT_SENT = 256,    /* or is to be */
    RESOLVING = 512,     /* OPEN waits for the next hop's MAC address */
    RELEASING = 1024,
    LOST = 2048,         /* what the engine thinks of the id is not known: not used before a reset */
    IN_TIME_WAIT = 4096,
    END_TOLD = 8192,     /* TOE_ENDED was given to the application, or is not to be */
    USED = 16384,        /* neither free nor in stock */
    ACTIVE = 32768       /* an active open */
};

enum connection_todo { DO_PROVISION = 1, DO_OPEN = 2, DO_CLOSE = 4, DO_ABORT = 8, DO_RELEASE = 16,
                       DO_END = 32 /* no command: the application has still to be told the end */ };

enum listener_state { LISTENER_FREE = 0, LISTENER_STARTING, LISTENER_ACTIVE, LISTENER_REFUSED, LISTENER_STOPPING };
enum listener_todo { DO_LISTEN = 1, DO_UNLISTEN = 2 };

#define COMMAND_DWORDS (TIPTOE_COMMAND_BYTES / 4u)
#define EVENT_DWORDS (TIPTOE_EVENT_BYTES / 4u)

/* ---- engine.c: registers and bring-up ---- */

static inline void toe_write32(const struct toe *t, uint32_t address, uint32_t value)
{
    t->device.write32(t->device.context, address, value);
}

static inline uint32_t toe_read32(const struct toe *t, uint32_t address)
{
    return t->device.read32(t->device.context, address);
}

static inline uint8_t *toe_memory(const struct toe *t, uint32_t offset)
{
    return t->device.memory + offset;
}

void toe_fence(const struct toe *t);
void toe_invalidate(const struct toe *t, uint32_t offset, size_t bytes);

/* ---- rings.c: commands out, events in ---- */

void toe_rings_reset(struct toe *t);
/* Post a command of zeros and fields; false: the ring is full, `blocked` is set, and toe_work() comes again. */
bool toe_post(struct toe *t, uint32_t *dwords, uint32_t opcode, uint32_t tag);
/* The next event; false: there is none. */
bool toe_next_event(struct toe *t, uint32_t *dwords);
void toe_events_done(struct toe *t);
/* The command that was written as number `count` since reset; false: its entry has been written again. */
bool toe_written_command(const struct toe *t, uint32_t count, uint32_t *dwords);
/* Whether commands wait to be read or answered and none has got on since the last look. */
bool toe_commands_stand(struct toe *t);

/* ---- ids.c: connection ids from PROVISION to RELEASE ---- */

void toe_ids_reset(struct toe *t, bool first);
/* After a reset: TOE_ENDED to whoever had a connection. */
void toe_ids_tell_reset(struct toe *t);
/* The id of a connection that begins, NULL: there is none for it. */
struct toe_connection *toe_id_take(struct toe *t);
struct toe_connection *toe_id_find(struct toe *t, uint32_t tid);
/* An id of the stock serves a connection now. */
void toe_id_accepted(struct toe *t, struct toe_connection *c);
/* Ids into stock as the configuration wants it, once somebody listens. */
void toe_ids_replenish(struct toe *t);
/* Ids run short: the oldest TIME_WAIT ends. */
void toe_ids_relieve(struct toe *t);
/* Post what the connection has to do, as far as the command ring has room. */
void toe_id_work(struct toe *t, struct toe_connection *c);
/* RELEASE it, if neither the application nor the engine has it any more. */
void toe_id_let_go(struct toe *t, struct toe_connection *c);
void toe_id_released(struct toe *t, struct toe_connection *c, uint32_t status);
/* Its state on the engine is unknown: it is not used again before a reset. */
void toe_id_lose(struct toe *t, struct toe_connection *c);
/* Of OPEN and LISTEN: the smallest that covers the receive ring (RFC 7323 section 2.3). */
uint32_t toe_window_scale(const struct toe *t);

/* ---- connection.c: the calls ---- */

void toe_connections_sweep(struct toe *t);
/* The neighbour that OPENs wait for has answered, or has not. */
void toe_neighbour_answer(struct toe *t, uint8_t slot, bool reached);
/* Post ABORT, once. */
void toe_abort_now(struct toe *t, struct toe_connection *c);
/* Tell the engine what may go out: data in the ring, and the FIN behind it. */
void toe_push(struct toe *t, struct toe_connection *c);

/* ---- events.c: what the engine says ---- */

void toe_handle(struct toe *t, const uint32_t *event);
/* The engine has no connection any more: the application is told `what` and the end, the id goes back. */
void toe_over(struct toe *t, struct toe_connection *c, enum toe_error error, unsigned what);

/* ---- listen.c: listeners and half-open connections ---- */

void toe_listeners_reset(struct toe *t);
void toe_listener_work(struct toe *t, uint16_t number);
void toe_listener_answer(struct toe *t, uint32_t number, uint32_t opcode, uint32_t status);
void toe_syn_received(struct toe *t, const uint32_t *event);
void toe_syncache_gone(struct toe *t, const uint32_t *event);
/* An accepted connection gets its four-tuple (false: nobody knows it) and, if somebody still listens, an application. */
bool toe_accepted(struct toe *t, struct toe_connection *c, uint32_t reference);

/* ---- frames.c, arp.c ---- */

void toe_frames_reset(struct toe *t);
void toe_frame_received(struct toe *t, const uint32_t *event);
void toe_frame_sent(struct toe *t, uint32_t tag);
/* A free buffer for a frame to be sent, and sending it; NULL: all are under way. */
uint8_t *toe_frame_buffer(struct toe *t, unsigned *slot);
bool toe_frame_out(struct toe *t, unsigned slot, size_t length);

static inline uint16_t get16(const uint8_t *from)
{
    return (uint16_t)(from[0] << 8 | from[1]);
}

static inline uint32_t get32(const uint8_t *from)
{
    return (uint32_t)get16(from) << 16 | get16(from + 2);
}

static inline uint64_t get48(const uint8_t *from)
{
    return (uint64_t)get16(from) << 32 | get32(from + 2);
}

static inline void put16(uint8_t *to, uint32_t value)
{
    to[0] = (uint8_t)(value >> 8);
    to[1] = (uint8_t)value;
}

static inline void put32(uint8_t *to, uint32_t value)
{
    put16(to, value >> 16);
    put16(to + 2, value);
}

static inline void put48(uint8_t *to, uint64_t value)
{
    put16(to, (uint32_t)(value >> 32));
    put32(to + 2, (uint32_t)value);
}

void toe_arp_reset(struct toe *t);
void toe_arp_announce(struct toe *t);
void toe_arp_input(struct toe *t, const uint8_t *packet, size_t length);
void toe_arp_sweep(struct toe *t);
void toe_arp_work(struct toe *t);
/* The slot of a next hop, held until toe_arp_drop(); all ones: there is no room. It is asked for, if it is not known. */
uint8_t toe_arp_hold(struct toe *t, uint32_t ip);
void toe_arp_drop(struct toe *t, uint8_t slot);

#endif
