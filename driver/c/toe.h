/* A driver of the Tiptoe TCP offload engine in C11, for firmware and kernels: no operating system, no malloc, no thread.
 *
 * struct toe, the tables and the rings lie in memory that the caller gives (toe_config, toe_device). The caller runs toe_poll()
 * again and again, from one loop or from the interrupt's bottom half; handlers are called from within it. No call waits for the
 * peer or the engine, but for toe_start() and toe_reset(), which wait for the engine's reset (a second at most).
 *
 * A connection is the application's from toe_connect(), or from the TOE_ESTABLISHED of its listener's handler, until toe_close().
 * When it ends, TOE_ENDED comes once, last. Its id comes back when the engine has told its end and the application has closed it,
 * in either order. An idle connection whose peer is gone does not end by itself: set a timer.
 *
 * Addresses and ports are numbers: 10.0.0.1 is 0x0a000001, a MAC address has its first byte on the wire in bits 47:40.
 * SPDX-License-Identifier: BSD-2-Clause
 */
#ifndef TOE_H
#define TOE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "device.h"
#include "tiptoe.h"

#ifdef __cplusplus
extern "C" {
#endif

enum toe_error {
    TOE_OK = 0,
    TOE_NO_ENGINE = 1,   /* none there, or of another version */
    TOE_NOT_READY = 2,   /* it does not come out of reset; toe_poll() tries again */
    TOE_ARGUMENT = 3,
    TOE_NO_MEMORY = 4,   /* the rings do not fit, or lie askew; a table is too small */
    TOE_FULL = 5,        /* no id, no listener left */
    TOE_IN_USE = 6,      /* that port, or that four-tuple */
    TOE_REFUSED = 7,     /* nobody listens there */
    TOE_RESET = 8,       /* by the peer */
    TOE_TIMED_OUT = 9,   /* the peer does not answer */
    TOE_UNREACHABLE = 10, /* the next hop does not answer ARP */
    TOE_ABORTED = 11,    /* by toe_abort() */
    TOE_DMA = 12,        /* the engine cannot reach the rings */
    TOE_COMMAND = 13,    /* the engine has refused a command */
    TOE_DOWN = 14,       /* the engine was reset, or does not run */
    TOE_NOT_FOUND = 15,
    TOE_PENDING = 16     /* not answered yet */
};

/* What has happened, for the handler: bits. */
enum toe_what {
    TOE_ESTABLISHED = 1,
    TOE_RECEIVED = 2,     /* there is more to receive */
    TOE_ACKNOWLEDGED = 4, /* there is more room to send */
    TOE_PEER_CLOSED = 8,  /* all the peer sends has been received into the ring; we may still send */
    TOE_TIMER = 16,       /* of toe_set_timer() */
    TOE_ENDED = 32        /* see toe_status(); what was received can still be read, then toe_close() */
};

struct toe;
struct toe_connection;
struct toe_half_open;

/* May call everything but toe_poll(), toe_start() and toe_reset(). Do not touch the connection after toe_close(). */
typedef void toe_handler(struct toe_connection *connection, unsigned what);

struct toe_register {
    uint32_t address, value;
};

struct toe_config {
    uint64_t mac;
    uint32_t ip, netmask, gateway; /* gateway 0: none */
    uint16_t mtu;                  /* 0: 1500, or what the engine carries if that is less */
    uint32_t tick_cycles;          /* clock cycles of a millisecond; 0: the tick input is used */
    uint32_t secret[12];           /* random numbers that nobody can guess */

    /* Tables. `passive` of the connections accept, the others connect: neither takes an id from the other. */
    struct toe_connection *connections;
    uint16_t connection_count, passive;
    struct toe_half_open *half_open;
    uint16_t half_open_count; /* the engine's syncache and `passive` at least: TOE_HALF_OPEN */

    uint8_t command_log2, event_log2, frame_log2; /* entries of the rings: 4 to 16, 4 to 20, 1 to 15 */
    uint8_t snd_log2, rcv_log2;                   /* bytes of a connection's rings: 12 to 24 */

    bool interrupts; /* the interrupt line is raised by events, and lowered by toe_poll() */
    bool syn_cookies;
    /* Times; 0: what stands there. */
    uint32_t time_wait_ms; /* 60 000. When ids run short, the oldest TIME_WAIT ends early */
    uint32_t orphan_ms;    /* 60 000: so long a closed connection may go on without progress, then it is reset */
    uint32_t watchdog_ms;  /* 1000: between two looks whether the engine gets on */
    /* Further registers to be set before the engine is enabled: timers, limits (docs/registers.md). */
    const struct toe_register *registers;
    size_t register_count;
    /* Frames that are neither ARP nor ICMP echo; NULL: nobody takes them. */
    void (*frame)(void *context, const uint8_t *frame, size_t length);
    void *frame_context;
};

/* Frames that may be on their way out at once: ARP, ICMP echo, toe_send_frame(). */
#define TOE_FRAMES_OUT 8u
#define TOE_HALF_OPEN(syncache_entries, passive) ((syncache_entries) + (passive))
/* Memory that the engine must reach, of an engine with frames up to 2046 bytes. It begins aligned to the largest of its parts: a
 * connection's ring, or one of the three rings of all. */
#define TOE_MEMORY_BYTES(connections, snd_log2, rcv_log2, command_log2, event_log2, frame_log2) \
    ((size_t)(connections) * (((size_t)1 << (snd_log2)) + ((size_t)1 << (rcv_log2))) + \
     ((size_t)TIPTOE_COMMAND_BYTES << (command_log2)) + ((size_t)TIPTOE_EVENT_BYTES << (event_log2)) + \
     ((size_t)TIPTOE_HOST_FRAME_SLOT_BYTES << (frame_log2)) + (size_t)TIPTOE_HOST_FRAME_SLOT_BYTES * TOE_FRAMES_OUT)

/* What went wrong or was remarkable since toe_start(); none is cleared by a reset. */
struct toe_counters {
    uint32_t events, bad_events, bad_positions, bad_doorbells, error_events, refused_commands, lost_ids;
    uint32_t accepted, connected, ended, refused, reset_by_peer, timed_out;
    uint32_t time_wait_short, orphans_reset, stale_half_open;
    uint32_t arp_requests, arp_answers, arp_conflicts, echoes, frames_in, frames_out, frames_dropped;
    uint32_t standstills, resets;
};

/* ---- the engine ---- */

enum toe_error toe_start(struct toe *toe, const struct toe_device *device, const struct toe_config *config);
/* Handle what has happened. Whether something has; to be called at least every 10 ms. */
bool toe_poll(struct toe *toe);
/* Reset the engine: all connections end with TOE_DOWN, listeners come back. Not from a handler. */
enum toe_error toe_reset(struct toe *toe);
/* TOE_OK, TOE_NOT_READY: it does not come out of a reset, TOE_NO_ENGINE: the device is gone. */
enum toe_error toe_state(const struct toe *toe);
const struct toe_counters *toe_counters(const struct toe *toe);
/* One of the engine's own counters, enum tiptoe_counter: a slow register read. */
uint32_t toe_engine_counter(const struct toe *toe, enum tiptoe_counter counter);
uint64_t toe_now_us(const struct toe *toe);

/* ---- connections ---- */

/* Listen at a port; `context` is what toe_context() says of accepted connections at first. */
enum toe_error toe_listen(struct toe *toe, uint16_t port, toe_handler *handler, void *context);
/* TOE_OK: the engine listens; TOE_PENDING: it has not said so yet; TOE_COMMAND: refused; TOE_NOT_FOUND. */
enum toe_error toe_listening(const struct toe *toe, uint16_t port);
enum toe_error toe_unlisten(struct toe *toe, uint16_t port);
/* TOE_ESTABLISHED or TOE_ENDED follows. `port` 0: one is chosen. Data may be sent at once: it goes out with the connection. */
enum toe_error toe_connect(struct toe *toe, uint16_t port, uint32_t peer_ip, uint16_t peer_port, toe_handler *handler,
                           void *context, struct toe_connection **connection);

/* Copy to the send ring; how many bytes it took. 0 after toe_shutdown() or the end. */
size_t toe_send(struct toe_connection *connection, const void *data, size_t length);
/* The same without the copy: where to write, and how many bytes at once; then say how many were written. */
size_t toe_send_space(struct toe_connection *connection, uint8_t **space);
void toe_sent(struct toe_connection *connection, size_t length);
/* Bytes that toe_send() would take: toe_send_space() may give them in two pieces. */
size_t toe_send_room(const struct toe_connection *connection);
/* Bytes of ours that the peer has not acknowledged. */
size_t toe_unacknowledged(const struct toe_connection *connection);

/* Copy what was received; how many bytes. 0: nothing there now (the peer's end: toe_peer_closed()). */
size_t toe_receive(struct toe_connection *connection, void *data, size_t length);
/* The same without the copy: where it is, and how many bytes in one piece; then say how many are done with. */
size_t toe_received(const struct toe_connection *connection, const uint8_t **data);
void toe_consumed(struct toe_connection *connection, size_t length);
/* Bytes that toe_receive() would give. */
size_t toe_available(const struct toe_connection *connection);

/* FIN behind what was sent. */
void toe_shutdown(struct toe_connection *connection);
/* RST. TOE_ENDED follows. */
void toe_abort(struct toe_connection *connection);
/* The connection is the driver's from now on, no handler is called any more. It ends in an orderly way, or is reset if data is
 * there, or comes, that nobody has read. */
void toe_close(struct toe_connection *connection);

/* TOE_TIMER after so many microseconds, once; 0: not any more. */
void toe_set_timer(struct toe_connection *connection, uint32_t microseconds);
void toe_set_handler(struct toe_connection *connection, toe_handler *handler, void *context);
void *toe_context(const struct toe_connection *connection);
struct toe *toe_of(const struct toe_connection *connection);
/* TOE_PENDING: not established, TOE_OK: established or ended in an orderly way, else why it has ended. */
enum toe_error toe_status(const struct toe_connection *connection);
bool toe_peer_closed(const struct toe_connection *connection);
/* A number below connection_count, of its own as long as the connection is the application's: for tables beside. */
uint16_t toe_index(const struct toe_connection *connection);
uint32_t toe_peer_ip(const struct toe_connection *connection);
uint16_t toe_peer_port(const struct toe_connection *connection);
uint16_t toe_port(const struct toe_connection *connection);
/* Connections that the application has or that are on their way out; ids in stock for accepting. */
unsigned toe_in_use(const struct toe *toe);
unsigned toe_stock(const struct toe *toe);

/* ---- frames ---- */

/* An Ethernet frame without FCS, padded to 60 bytes. Whether it was taken: there may be no room just now. */
bool toe_send_frame(struct toe *toe, const uint8_t *frame, size_t length);

#ifdef __cplusplus
}
#endif

#include "toe_structures.h" /* sizes of the structures, whose members are nobody's business */

#endif
