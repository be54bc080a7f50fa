/* The board as a server without a PC: HTTP at port 80, a sink at 5001, a source at 5002, on the driver in driver/c.
 * SPDX-License-Identifier: BSD-2-Clause
 */
#include <stddef.h>

#include "apps/apps.h"
#include "platform.h"

void *memset(void *to, int value, size_t length); /* memory.c */

/* The board's addresses. */
#define MAC 0x10e2d5000001
#define IP 0xc0a80133u /* 192.168.1.51 */
#define NETMASK 0xffffff00u
#define GATEWAY 0u /* none */

#ifdef CSR_SDRAM_BASE
enum { RING_LOG2 = 15, COMMAND_LOG2 = 8, EVENT_LOG2 = 10, FRAME_LOG2 = 4, CONNECTIONS = TIPTOE_CONNECTIONS };
#else
enum {
    RING_LOG2 = 12, COMMAND_LOG2 = 4, EVENT_LOG2 = 6, FRAME_LOG2 = 2,
    /* As many connections as host memory has rings for. */
    CONNECTIONS = (MEMORY_SIZE - TOE_MEMORY_BYTES(0, RING_LOG2, RING_LOG2, COMMAND_LOG2, EVENT_LOG2, FRAME_LOG2)) >>
                  (RING_LOG2 + 1)
};
#endif
enum {
    POLL_US = 1000, /* the driver's times want to be looked at every 10 ms */
    RETRY_US = 1000000
};

/* The applications'. */
struct tables {
    struct http_client clients[CONNECTIONS];
    struct stream streams[CONNECTIONS];
};

static struct toe toe;
static struct toe_connection connections[CONNECTIONS];
static struct toe_half_open half_open[TOE_HALF_OPEN(TIPTOE_SYNCACHE, CONNECTIONS)];

#ifdef CSR_SDRAM_BASE
/* Too large for the processor's memory, and looked at seldom: at the end of host memory, which is the driver's no more then. */
static struct tables *make_tables(struct toe_device *device)
{
    enum { BYTES = (sizeof(struct tables) + 7) & ~7u };

    _Static_assert(TOE_MEMORY_BYTES(CONNECTIONS, RING_LOG2, RING_LOG2, COMMAND_LOG2, EVENT_LOG2, FRAME_LOG2) + BYTES <= MEMORY_SIZE,
                   "host memory is too small for all rings");
    device->bytes -= BYTES;
    memset(device->memory + device->bytes, 0, BYTES);
    return (struct tables *)(void *)(device->memory + device->bytes);
}
#else
static struct tables *make_tables(struct toe_device *device)
{
    static struct tables tables;

    (void)device;
    return &tables;
}
#endif

static void check(const char *what, enum toe_error error)
{
    if (error) {
        platform_fault(FAULT_DRIVER);
        platform_print_hex(what, error);
    }
}

int main(void)
{
    static struct http_server server;
    static struct streams streams;
    struct tables *tables;
    struct toe_device device;
    struct toe_config config = {
        .mac = MAC, .ip = IP, .netmask = NETMASK, .gateway = GATEWAY,
        .tick_cycles = CONFIG_CLOCK_FREQUENCY / 1000,
        .connections = connections, .connection_count = CONNECTIONS, .passive = CONNECTIONS,
        .half_open = half_open, .half_open_count = sizeof half_open / sizeof *half_open,
        .command_log2 = COMMAND_LOG2, .event_log2 = EVENT_LOG2, .frame_log2 = FRAME_LOG2,
        .snd_log2 = RING_LOG2, .rcv_log2 = RING_LOG2,
        .interrupts = true,
    };
    uint64_t next = 0;

    platform_print_hex("tiptoe build ", platform_read(CSR_STATUS_BUILD_ADDR));
    while (!platform_start_memory()) {
        platform_fault(FAULT_MEMORY);
        platform_wait_us(RETRY_US);
    }
    platform_fault(FAULT_NONE);
    platform_device(&device);
    tables = make_tables(&device);
    server.clients = tables->clients;
    streams.table = tables->streams;
    platform_secret(config.secret, sizeof config.secret / sizeof *config.secret);
    check("start failed: ", toe_start(&toe, &device, &config));
    check("http failed: ", http_listen(&toe, 80, &server));
    check("sink failed: ", sink_listen(&toe, 5001, &streams));
    check("source failed: ", source_listen(&toe, 5002, &streams));
    platform_print_hex("serving at ", IP);
    for (;;) {
        if (platform_irq() || platform_now_us() >= next) {
            toe_poll(&toe);
            next = toe_now_us(&toe) + POLL_US;
        }
    }
}
