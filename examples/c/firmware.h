/* Firmware on the driver of driver/c: one structure with everything in it, so that a board has it as a static variable.
 * SPDX-License-Identifier: BSD-2-Clause
 */
#ifndef FIRMWARE_H
#define FIRMWARE_H

#include "apps/apps.h"

#ifdef __cplusplus
extern "C" {
#endif

#ifndef FIRMWARE_CONNECTIONS
#define FIRMWARE_CONNECTIONS 16 /* the engine's, or fewer */
#endif
#ifndef FIRMWARE_SYNCACHE
#define FIRMWARE_SYNCACHE 128 /* the engine's, or more */
#endif

/* Ports of the applications. */
enum { FIRMWARE_ECHO = 7, FIRMWARE_HTTP = 80, FIRMWARE_SINK = 5001, FIRMWARE_SOURCE = 5002 };

struct firmware {
    struct toe toe;
    struct toe_connection connections[FIRMWARE_CONNECTIONS];
    struct toe_half_open half_open[TOE_HALF_OPEN(FIRMWARE_SYNCACHE, FIRMWARE_CONNECTIONS)];
    struct http_client clients[FIRMWARE_CONNECTIONS];
    struct stream stream[FIRMWARE_CONNECTIONS];
    struct http_server http;
    struct streams streams;
};

/* What differs from board to board; the rest of toe_config is set by firmware_start(). */
struct firmware_settings {
    uint64_t mac;
    uint32_t ip, netmask, gateway;
    uint32_t tick_cycles;
    uint32_t passive; /* connections for accepting */
    uint32_t command_log2, event_log2, frame_log2, snd_log2, rcv_log2;
    uint32_t time_wait_ms, orphan_ms, watchdog_ms;
    uint32_t interrupts, syn_cookies;
    uint32_t applications; /* 0: nobody listens */
    uint32_t secret[12];
};

extern const size_t firmware_bytes; /* of struct firmware */

/* Start the engine, and the applications on it; then call toe_poll() for ever. */
enum toe_error firmware_start(struct firmware *firmware, const struct toe_device *device,
                              const struct firmware_settings *settings);

/* Send so many bytes, or for so many seconds, to a sink elsewhere. */
enum toe_error firmware_source(struct firmware *firmware, uint32_t ip, uint16_t port, uint64_t bytes, uint32_t seconds);

#ifdef __cplusplus
}
#endif

#endif
