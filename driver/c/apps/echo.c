/* The echo service (RFC 862): the smallest handler.
 * SPDX-License-Identifier: BSD-2-Clause
 */
#include "apps.h"

static void echo(struct toe_connection *c, unsigned what)
{
    const uint8_t *data;
    size_t length;

    if (what & TOE_TIMER)
        toe_abort(c);
    if (what & (TOE_ENDED | TOE_TIMER)) {
        toe_close(c);
        return;
    }
    toe_set_timer(c, APP_IDLE_US);
    /* As much as there is room for; an acknowledgement of what was sent calls again. */
    while ((length = toe_received(c, &data)) != 0) {
        const size_t sent = toe_send(c, data, length);

        toe_consumed(c, sent);
        if (sent < length)
            return;
    }
    if (toe_peer_closed(c))
        toe_close(c);
}

enum toe_error echo_listen(struct toe *t, uint16_t port)
{
    return toe_listen(t, port, echo, NULL);
}
