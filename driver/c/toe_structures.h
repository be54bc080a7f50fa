/* The driver's structures, for their sizes: included by toe.h. The members are the driver's own business.
 * SPDX-License-Identifier: BSD-2-Clause
 */
#ifndef TOE_STRUCTURES_H
#define TOE_STRUCTURES_H

#define TOE_NEIGHBOURS 16u
#define TOE_LISTENERS 8u
#define TOE_NOBODY 0xffffu

/* One connection id: free, in stock for passive opens, in use, on its way back. */
struct toe_connection {
    struct toe *toe;
    toe_handler *handler;
    void *context;
    uint64_t timer; /* when TOE_TIMER, or the limit of a closed connection, is due; 0: never */
    uint32_t peer_ip;
    uint32_t snd, rcv;        /* offsets of the rings in memory */
    uint32_t written, sent, acked; /* send positions: in the ring, told the engine, acknowledged */
    uint32_t arrived, consumed;    /* receive positions */
    uint32_t time_wait_since; /* a count, to tell the oldest */
    uint16_t index, next;     /* next of the free list */
    uint16_t port, peer_port;
    uint16_t flags;
    uint8_t todo;             /* commands that have still to be posted */
    uint8_t generation;
    uint8_t error;
    uint8_t neighbour;        /* slot of the next hop that an active open holds; all ones: none */
};

/* A SYN that the engine has answered: the four-tuple of the connection that may come of it. */
struct toe_half_open {
    uint32_t peer_ip;
    uint16_t peer_port, port, reference;
    bool used;
};

struct toe_listener {
    toe_handler *handler;
    void *context;
    uint16_t port;
    uint8_t state; /* enum listener_state of toe_internal.h */
    uint8_t todo;
};

struct toe_neighbour {
    uint64_t mac, next; /* when the next look is due */
    uint32_t ip;        /* 0: the slot is free */
    uint16_t users;
    uint8_t tries;      /* requests without an answer */
    bool known, todo;   /* the MAC address is known; NEXT_HOP has to be posted */
};

struct toe {
    struct toe_device device;
    struct toe_config config;
    struct toe_counters counters;
    struct toe_listener listeners[TOE_LISTENERS];
    struct toe_neighbour neighbours[TOE_NEIGHBOURS];
    uint64_t now, sweep, watch;
    uint32_t commands, commands_read; /* written, known to have been read: since reset, modulo 2^32 */
    uint32_t commands_watched, events_watched;
    uint32_t events, frames, frames_told;
    uint32_t command_ring, event_ring, frame_ring, frames_out; /* offsets in memory */
    uint32_t slot_bytes, frame_limit, time_waits; /* so many there have been */
    uint16_t mss, next_hops, listener_count;
    uint16_t free_first, free_last, stocked, in_use, active, in_time_wait;
    uint16_t next_port;
    uint16_t answers_awaited; /* of commands that are always answered */
    uint8_t frames_out_busy;
    uint8_t looks;
    uint8_t state; /* enum toe_error: TOE_OK while it runs */
    bool blocked;  /* the command ring was full: something has to be posted later */
    bool polling, reset_wanted, stocking;
};

#endif
