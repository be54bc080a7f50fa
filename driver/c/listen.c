/* Listeners, and the connections that are half open on the engine: only the event of the SYN tells the four-tuple of the
 * connection that may come of it.
 * SPDX-License-Identifier: BSD-2-Clause
 */
#include "toe_internal.h"

void toe_listener_work(struct toe *t, uint16_t number)
{
    struct toe_listener *l = &t->listeners[number];
    uint32_t dwords[COMMAND_DWORDS] = {0};

    if (t->state != TOE_OK || !l->todo)
        return;
    if (l->todo == DO_UNLISTEN) {
        TIPTOE_PUT(dwords, TIPTOE_CMD_UNLISTEN_LISTENER, number);
        if (!toe_post(t, dwords, TIPTOE_OPCODE_UNLISTEN, 0))
            return;
    } else {
        TIPTOE_PUT(dwords, TIPTOE_CMD_LISTEN_LISTENER, number);
        TIPTOE_PUT(dwords, TIPTOE_CMD_LISTEN_LADDR, t->config.ip);
        TIPTOE_PUT(dwords, TIPTOE_CMD_LISTEN_LPORT, l->port);
        TIPTOE_PUT(dwords, TIPTOE_CMD_LISTEN_MSS, t->mss);
        TIPTOE_PUT(dwords, TIPTOE_CMD_LISTEN_RCV_SCALE, toe_window_scale(t));
        TIPTOE_PUT(dwords, TIPTOE_CMD_LISTEN_WND, t->config.rcv_log2 < 16 ? 1u << t->config.rcv_log2 : 0xffffu);
        if (!toe_post(t, dwords, TIPTOE_OPCODE_LISTEN, 0))
            return;
    }
    l->todo = 0;
    t->answers_awaited++;
}

static int find(const struct toe *t, uint16_t port)
{
    for (int n = 0; n < t->listener_count; n++)
        if (t->listeners[n].state != LISTENER_FREE && t->listeners[n].state != LISTENER_STOPPING && t->listeners[n].port == port)
            return n;
    return -1;
}

enum toe_error toe_listen(struct toe *t, uint16_t port, toe_handler *handler, void *context)
{
    if (t->state == TOE_DOWN)
        return TOE_DOWN;
    if (!port || !handler || !t->config.passive)
        return TOE_ARGUMENT;
    if (find(t, port) >= 0)
        return TOE_IN_USE;
    for (uint16_t n = 0; n < t->listener_count; n++) {
        struct toe_listener *l = &t->listeners[n];

        if (l->state != LISTENER_FREE)
            continue;
        *l = (struct toe_listener){.handler = handler, .context = context, .port = port,
                                   .state = LISTENER_STARTING, .todo = DO_LISTEN};
        t->stocking = true;
        toe_ids_replenish(t); /* ids first: the first SYN finds them */
        toe_listener_work(t, n);
        return TOE_OK;
    }
    return TOE_FULL;
}

enum toe_error toe_listening(const struct toe *t, uint16_t port)
{
    const int n = find(t, port);

    if (n < 0)
        return TOE_NOT_FOUND;
    if (t->listeners[n].state == LISTENER_ACTIVE)
        return TOE_OK;
    return t->listeners[n].state == LISTENER_REFUSED ? TOE_COMMAND : TOE_PENDING;
}

enum toe_error toe_unlisten(struct toe *t, uint16_t port)
{
    const int n = find(t, port);
    struct toe_listener *l;

    if (n < 0)
        return TOE_NOT_FOUND;
    l = &t->listeners[n];
    if (l->todo == DO_LISTEN || l->state == LISTENER_REFUSED) { /* the engine knows nothing of it */
        l->todo = 0;
        l->state = LISTENER_FREE;
        return TOE_OK;
    }
    l->state = LISTENER_STOPPING; /* the entry is not used again before the engine has answered */
    l->todo = DO_UNLISTEN;
    toe_listener_work(t, (uint16_t)n);
    return TOE_OK;
}

void toe_listener_answer(struct toe *t, uint32_t number, uint32_t opcode, uint32_t status)
{
    struct toe_listener *l;

    if (number >= t->listener_count) {
        t->counters.bad_events++;
        return;
    }
    l = &t->listeners[number];
    if (opcode == TIPTOE_OPCODE_LISTEN && l->state == LISTENER_STARTING)
        l->state = status == TIPTOE_STATUS_OK ? LISTENER_ACTIVE : LISTENER_REFUSED;
    else if (opcode == TIPTOE_OPCODE_UNLISTEN && l->state == LISTENER_STOPPING) {
        l->state = LISTENER_FREE;
        if (status == TIPTOE_STATUS_DMA_ERROR) { /* not read: the engine listens on */
            l->state = LISTENER_STOPPING;
            l->todo = DO_UNLISTEN;
            t->blocked = true;
        }
    }
}

void toe_listeners_reset(struct toe *t)
{
    for (uint16_t n = 0; n < t->config.half_open_count; n++)
        t->config.half_open[n].used = false;
    for (uint16_t n = 0; n < t->listener_count; n++) {
        struct toe_listener *l = &t->listeners[n];

        if (l->state == LISTENER_STOPPING)
            l->state = LISTENER_FREE;
        l->todo = l->state == LISTENER_FREE ? 0 : DO_LISTEN;
        if (l->todo) {
            l->state = LISTENER_STARTING;
            toe_listener_work(t, n);
        }
    }
}

/* ---- half-open connections ---- */

/* Where a reference is kept; its index on the engine is in the low bits, so it is mostly found at once. */
static struct toe_half_open *half_open(struct toe *t, uint32_t reference, bool used)
{
    const uint32_t count = t->config.half_open_count;

    for (uint32_t n = 0, at = count ? reference % count : 0; n < count; n++, at = at + 1 < count ? at + 1 : 0) {
        struct toe_half_open *h = &t->config.half_open[at];

        if (h->used == used && (!used || h->reference == reference))
            return h;
    }
    return NULL;
}

void toe_syn_received(struct toe *t, const uint32_t *e)
{
    const uint32_t reference = TIPTOE_GET(e, TIPTOE_EVT_SYN_RECEIVED_SYNCACHE_REF);
    struct toe_half_open *h = half_open(t, reference, true);

    if (h)
        t->counters.stale_half_open++; /* its end was not told */
    else
        h = half_open(t, reference, false);
    if (!h) {
        t->counters.bad_events++;
        return;
    }
    *h = (struct toe_half_open){
        .peer_ip = TIPTOE_GET(e, TIPTOE_EVT_SYN_RECEIVED_FADDR),
        .peer_port = (uint16_t)TIPTOE_GET(e, TIPTOE_EVT_SYN_RECEIVED_FPORT),
        .port = (uint16_t)TIPTOE_GET(e, TIPTOE_EVT_SYN_RECEIVED_LPORT),
        .reference = (uint16_t)reference,
        .used = true,
    };
}

void toe_syncache_gone(struct toe *t, const uint32_t *e)
{
    struct toe_half_open *h = half_open(t, TIPTOE_GET(e, TIPTOE_EVT_SYNCACHE_GONE_SYNCACHE_REF), true);

    if (h)
        h->used = false;
    else
        t->counters.stale_half_open++;
}

bool toe_accepted(struct toe *t, struct toe_connection *c, uint32_t reference)
{
    struct toe_half_open *h = half_open(t, reference, true);
    int n;

    if (!h)
        return false;
    h->used = false;
    c->peer_ip = h->peer_ip;
    c->peer_port = h->peer_port;
    c->port = h->port;
    n = find(t, c->port);
    if (n >= 0) {
        c->handler = t->listeners[n].handler;
        c->context = t->listeners[n].context;
        c->flags |= ATTACHED;
    }
    return true;
}
