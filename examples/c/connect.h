/* One TCP connection through the engine, without an operating system: what connect.c needs, and what it tells.
 * SPDX-License-Identifier: BSD-2-Clause
 */
#ifndef CONNECT_H
#define CONNECT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The engine, on a board or simulated. */
struct connect_device {
    void *context; /* handed to every function */
    /* Write a register or doorbell: posted, in order, and after all that was written to `memory` before. */
    void (*write32)(void *context, uint32_t address, uint32_t value);
    uint32_t (*read32)(void *context, uint32_t address);
    /* Let time pass until the interrupt line is high, at most so long. Negative: the device has failed. */
    int32_t (*wait)(void *context, uint32_t timeout_us);
    uint64_t (*now_us)(void *context);
    /* What is going on, for a log; may be NULL. */
    void (*note)(void *context, const char *what, uint32_t number);
    volatile uint8_t *memory; /* CONNECT_MEMORY_BYTES that the engine reaches by AXI, aligned to their size */
    uint64_t address;         /* of memory[0], as the engine sees it */
};

#define CONNECT_MEMORY_BYTES 0x8000u

/* Addresses have their first byte on the wire in the highest bits. */
struct connect_settings {
    uint64_t mac, next_hop_mac; /* our own; the server's, or its router's */
    uint32_t ip, server_ip;
    uint16_t port, server_port;
    uint32_t tick_cycles; /* clock cycles in a millisecond */
    uint32_t secret[6];   /* random numbers that nobody can guess */
    uint32_t timeout_us;  /* for the whole connection */
};

enum connect_result {
    CONNECT_OK = 0,
    CONNECT_NO_ENGINE = 1, /* no engine there, or of another version */
    CONNECT_NOT_READY = 2, /* it does not come out of reset */
    CONNECT_REFUSED = 3,   /* nobody listens at that port */
    CONNECT_RESET = 4,     /* the peer has broken the connection off */
    CONNECT_TIMEOUT = 5,   /* no answer, or timeout_us is over */
    CONNECT_TOO_LONG = 6,  /* the answer is longer than the room for it */
    CONNECT_COMMAND = 7,   /* the engine has refused a command */
    CONNECT_MEMORY = 8,    /* the engine cannot reach the memory */
    CONNECT_DEVICE = 9     /* wait() has failed */
};

/* Bring the engine up, open a connection, send `request`, take the answer until the server closes, close, switch the engine off.
 * `length`: how many bytes of the answer are in `answer`, whatever the result. */
enum connect_result connect_fetch(const struct connect_device *device, const struct connect_settings *settings,
                                  const uint8_t *request, size_t request_length,
                                  uint8_t *answer, size_t room, size_t *length);

#ifdef __cplusplus
}
#endif

#endif
