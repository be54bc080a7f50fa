/* The calls of connections: what an application does to one.
 * SPDX-License-Identifier: BSD-2-Clause
 */
#include "toe_internal.h"

enum { FIRST_PORT = 49152, PORTS = 16384, PORT_TRIES = 256 };

static uint32_t snd_size(const struct toe_connection *c)
{
    return UINT32_C(1) << c->toe->config.snd_log2;
}

static uint32_t rcv_size(const struct toe_connection *c)
{
    return UINT32_C(1) << c->toe->config.rcv_log2;
}

/* ---- connect ---- */

static bool taken(const struct toe *t, uint16_t port, uint32_t peer_ip, uint16_t peer_port)
{
    for (uint16_t n = 0; n < t->config.connection_count; n++) {
        const struct toe_connection *c = &t->config.connections[n];

        if (c->flags & USED && c->port == port && c->peer_ip == peer_ip && c->peer_port == peer_port)
            return true;
    }
    return false;
}

static uint16_t choose_port(struct toe *t, uint32_t peer_ip, uint16_t peer_port)
{
    for (unsigned n = 0; n < PORT_TRIES; n++) {
        const uint16_t port = (uint16_t)(FIRST_PORT + (t->config.secret[11] + t->next_port++) % PORTS);

        if (!taken(t, port, peer_ip, peer_port))
            return port;
    }
    return 0;
}

enum toe_error toe_connect(struct toe *t, uint16_t port, uint32_t peer_ip, uint16_t peer_port, toe_handler *handler,
                           void *context, struct toe_connection **connection)
{
    const struct toe_config *f = &t->config;
    struct toe_connection *c;
    uint32_t next_hop = peer_ip;

    if (t->state != TOE_OK)
        return TOE_DOWN;
    if (!handler || !connection || !peer_port || !peer_ip || peer_ip == f->ip || peer_ip >> 28 >= 14 ||
        peer_ip == (f->ip | ~f->netmask))
        return TOE_ARGUMENT;
    if ((peer_ip ^ f->ip) & f->netmask) {
        if (!f->gateway)
            return TOE_UNREACHABLE;
        next_hop = f->gateway;
    }
    if (!port)
        port = choose_port(t, peer_ip, peer_port);
    else if (taken(t, port, peer_ip, peer_port))
        return TOE_IN_USE;
    c = port ? toe_id_take(t) : NULL;
    if (!c) {
        toe_ids_relieve(t);
        return TOE_FULL;
    }
    c->port = port;
    c->peer_ip = peer_ip;
    c->peer_port = peer_port;
    c->handler = handler;
    c->context = context;
    c->flags |= ATTACHED | RESOLVING;
    c->neighbour = toe_arp_hold(t, next_hop);
    if (c->neighbour == UINT8_MAX) {
        c->flags &= (uint16_t)~ATTACHED;
        toe_id_let_go(t, c);
        return TOE_FULL;
    }
    if (t->neighbours[c->neighbour].known)
        toe_neighbour_answer(t, c->neighbour, true);
    *connection = c;
    return TOE_OK;
}

void toe_neighbour_answer(struct toe *t, uint8_t slot, bool reached)
{
    for (uint16_t n = 0; n < t->config.connection_count; n++) {
        struct toe_connection *c = &t->config.connections[n];

        if (!(c->flags & RESOLVING) || c->neighbour != slot)
            continue;
        c->flags &= (uint16_t)~RESOLVING;
        if (reached) {
            c->todo |= DO_OPEN;
            toe_id_work(t, c);
        } else { /* told by the poll, not here: who tries again at once waits for an answer of its own */
            c->todo = DO_END;
            c->error = TOE_UNREACHABLE;
            t->blocked = true;
        }
    }
}

/* ---- send ---- */

static bool may_send(const struct toe_connection *c)
{
    return (c->flags & (ATTACHED | FIN_WANTED | ABORT_SENT | END_TOLD)) == ATTACHED && !(c->todo & DO_END);
}

size_t toe_send_room(const struct toe_connection *c)
{
    return may_send(c) ? snd_size(c) - (c->written - c->acked) : 0;
}

size_t toe_send_space(struct toe_connection *c, uint8_t **space)
{
    const uint32_t at = c->written & (snd_size(c) - 1), to_end = snd_size(c) - at;
    const size_t room = toe_send_room(c);

    *space = toe_memory(c->toe, c->snd + at);
    return room < to_end ? room : to_end;
}

void toe_sent(struct toe_connection *c, size_t length)
{
    if (length > toe_send_room(c))
        return;
    c->written += (uint32_t)length;
    toe_push(c->toe, c);
}

size_t toe_send(struct toe_connection *c, const void *data, size_t length)
{
    const uint8_t *from = data;
    size_t left = toe_send_room(c), done = 0;

    if (left > length)
        left = length;
    while (done < left) {
        uint8_t *space;
        size_t piece = toe_send_space(c, &space);

        if (piece > left - done)
            piece = left - done;
        memcpy(space, from + done, piece);
        c->written += (uint32_t)piece;
        done += piece;
    }
    toe_push(c->toe, c);
    return done;
}

size_t toe_unacknowledged(const struct toe_connection *c)
{
    return c->written - c->acked;
}

void toe_push(struct toe *t, struct toe_connection *c)
{
    if ((c->flags & (OPENED | EVENTS_PENDING | FIN_SENT | ABORT_SENT)) != (OPENED | EVENTS_PENDING) || t->state != TOE_OK)
        return; /* it goes out when there is a connection */
    if (c->flags & FIN_WANTED) {
        c->flags |= FIN_SENT;
        c->sent = c->written;
        c->todo |= DO_CLOSE;
        toe_id_work(t, c);
    } else if (c->sent != c->written) {
        c->sent = c->written;
        toe_fence(t);
        toe_write32(t, TIPTOE_DOORBELL_SND(c->index), c->sent);
    }
}

/* ---- receive ---- */

size_t toe_available(const struct toe_connection *c)
{
    return c->arrived - c->consumed;
}

size_t toe_received(const struct toe_connection *c, const uint8_t **data)
{
    const uint32_t at = c->consumed & (rcv_size(c) - 1), to_end = rcv_size(c) - at, there = c->arrived - c->consumed;

    *data = toe_memory(c->toe, c->rcv + at);
    return there < to_end ? there : to_end;
}

void toe_consumed(struct toe_connection *c, size_t length)
{
    struct toe *t = c->toe;

    if (!length || length > toe_available(c))
        return;
    c->consumed += (uint32_t)length;
    if ((c->flags & (OPENED | EVENTS_PENDING | ABORT_SENT)) == (OPENED | EVENTS_PENDING) && t->state == TOE_OK)
        toe_write32(t, TIPTOE_DOORBELL_RCV(c->index), c->consumed); /* its place goes back to the peer as window */
}

size_t toe_receive(struct toe_connection *c, void *data, size_t length)
{
    uint8_t *to = data;
    uint32_t done = 0;

    while (done < length && done < toe_available(c)) {
        const uint32_t at = (c->consumed + done) & (rcv_size(c) - 1);
        size_t piece = rcv_size(c) - at;

        if (piece > toe_available(c) - done)
            piece = toe_available(c) - done;
        if (piece > length - done)
            piece = length - done;
        memcpy(to + done, toe_memory(c->toe, c->rcv + at), piece);
        done += (uint32_t)piece;
    }
    toe_consumed(c, done);
    return done;
}

/* ---- the end ---- */

void toe_shutdown(struct toe_connection *c)
{
    if (!may_send(c))
        return;
    c->flags |= FIN_WANTED;
    toe_push(c->toe, c);
}

void toe_abort_now(struct toe *t, struct toe_connection *c)
{
    if ((c->flags & (EVENTS_PENDING | ABORT_SENT)) != EVENTS_PENDING)
        return;
    if (c->flags & IN_TIME_WAIT)
        t->in_time_wait--;
    c->flags |= ABORT_SENT;
    c->todo = (uint8_t)((c->todo & ~DO_CLOSE) | DO_ABORT);
    toe_id_work(t, c);
}

void toe_abort(struct toe_connection *c)
{
    struct toe *t = c->toe;

    if (c->flags & END_TOLD)
        return;
    if (c->flags & EVENTS_PENDING) {
        toe_abort_now(t, c);
        return;
    }
    c->flags &= (uint16_t)~RESOLVING; /* the engine knows nothing of it yet */
    c->todo = DO_END;
    c->error = TOE_ABORTED;
    t->blocked = true;
}

void toe_close(struct toe_connection *c)
{
    struct toe *t = c->toe;

    if (!(c->flags & ATTACHED))
        return;
    if (c->flags & EVENTS_PENDING) {
        if (!(c->flags & OPENED) || toe_available(c))
            toe_abort_now(t, c); /* RFC 2525 section 2.17 */
        else
            toe_shutdown(c);
        c->timer = toe_now_us(t) + (uint64_t)t->config.orphan_ms * 1000;
    } else {
        c->flags &= (uint16_t)~RESOLVING;
        c->todo &= DO_PROVISION | DO_RELEASE;
        c->timer = 0;
    }
    c->flags = (uint16_t)((c->flags & ~ATTACHED) | END_TOLD);
    c->handler = NULL;
    c->context = NULL;
    toe_id_let_go(t, c);
}

void toe_connections_sweep(struct toe *t)
{
    for (uint16_t n = 0; n < t->config.connection_count; n++) {
        struct toe_connection *c = &t->config.connections[n];

        if (!c->timer || t->now < c->timer)
            continue;
        c->timer = 0;
        if (c->flags & ATTACHED) {
            c->handler(c, TOE_TIMER);
        } else if ((c->flags & (EVENTS_PENDING | IN_TIME_WAIT | ABORT_SENT)) == EVENTS_PENDING) {
            t->counters.orphans_reset++;
            toe_abort_now(t, c);
        }
    }
}

/* ---- what there is to know ---- */

void toe_set_timer(struct toe_connection *c, uint32_t microseconds)
{
    if (c->flags & ATTACHED)
        c->timer = microseconds ? toe_now_us(c->toe) + microseconds : 0;
}

void toe_set_handler(struct toe_connection *c, toe_handler *handler, void *context)
{
    if (handler)
        c->handler = handler;
    c->context = context;
}

void *toe_context(const struct toe_connection *c)
{
    return c->context;
}

struct toe *toe_of(const struct toe_connection *c)
{
    return c->toe;
}

enum toe_error toe_status(const struct toe_connection *c)
{
    return (enum toe_error)c->error;
}

bool toe_peer_closed(const struct toe_connection *c)
{
    return c->flags & PEER_CLOSED;
}

uint16_t toe_index(const struct toe_connection *c)
{
    return c->index;
}

uint32_t toe_peer_ip(const struct toe_connection *c)
{
    return c->peer_ip;
}

uint16_t toe_peer_port(const struct toe_connection *c)
{
    return c->peer_port;
}

uint16_t toe_port(const struct toe_connection *c)
{
    return c->port;
}
