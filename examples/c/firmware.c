/* Firmware on the driver of driver/c: an HTTP server, an echo, a sink and a source on one engine. docs/driver.md speaks of it.
 * SPDX-License-Identifier: BSD-2-Clause
 */
#include "firmware.h"

const size_t firmware_bytes = sizeof(struct firmware);

enum toe_error firmware_start(struct firmware *f, const struct toe_device *device, const struct firmware_settings *s)
{
    struct toe_config config = {
        .mac = s->mac,
        .ip = s->ip,
        .netmask = s->netmask,
        .gateway = s->gateway,
        .tick_cycles = s->tick_cycles,
        .connections = f->connections,
        .connection_count = FIRMWARE_CONNECTIONS,
        .passive = (uint16_t)s->passive,
        .half_open = f->half_open,
        .half_open_count = sizeof f->half_open / sizeof f->half_open[0],
        .command_log2 = (uint8_t)s->command_log2,
        .event_log2 = (uint8_t)s->event_log2,
        .frame_log2 = (uint8_t)s->frame_log2,
        .snd_log2 = (uint8_t)s->snd_log2,
        .rcv_log2 = (uint8_t)s->rcv_log2,
        .interrupts = s->interrupts != 0,
        .syn_cookies = s->syn_cookies != 0,
        .time_wait_ms = s->time_wait_ms,
        .orphan_ms = s->orphan_ms,
        .watchdog_ms = s->watchdog_ms,
    };
    enum toe_error error;

    for (unsigned n = 0; n < sizeof config.secret / sizeof config.secret[0]; n++)
        config.secret[n] = s->secret[n];
    f->http.clients = f->clients;
    f->streams.table = f->stream;
    error = toe_start(&f->toe, device, &config);
    if (error || !s->applications)
        return error;
    error = http_listen(&f->toe, FIRMWARE_HTTP, &f->http);
    if (!error)
        error = echo_listen(&f->toe, FIRMWARE_ECHO);
    if (!error)
        error = sink_listen(&f->toe, FIRMWARE_SINK, &f->streams);
    if (!error)
        error = source_listen(&f->toe, FIRMWARE_SOURCE, &f->streams);
    return error;
}

enum toe_error firmware_source(struct firmware *f, uint32_t ip, uint16_t port, uint64_t bytes, uint32_t seconds)
{
    return source_connect(&f->toe, ip, port, bytes, seconds, &f->streams);
}
