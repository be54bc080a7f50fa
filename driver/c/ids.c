/* Connection ids and their commands.
 *
 * An id goes round: free, PROVISION (in stock, or for a connect at once), open, the terminal event, RELEASE, COMMAND_DONE, free.
 * Each PROVISION has another generation, which tells the uses of an id apart. `passive` of the ids are for accepting once
 * somebody listens: they go into stock as they come free, and no connect takes them.
 * SPDX-License-Identifier: BSD-2-Clause
 */
#include "toe_internal.h"

static bool post(struct toe *t, struct toe_connection *c, uint32_t *dwords, uint32_t opcode)
{
    /* The tid stands in the same place in all of them. */
    TIPTOE_PUT(dwords, TIPTOE_CMD_PROVISION_TID, c->index | (uint32_t)c->generation << 16);
    return toe_post(t, dwords, opcode, 0);
}

static bool post_provision(struct toe *t, struct toe_connection *c)
{
    uint32_t dwords[COMMAND_DWORDS] = {0};

    TIPTOE_PUT64(dwords, TIPTOE_CMD_PROVISION_SND_BASE, t->device.address + c->snd);
    TIPTOE_PUT64(dwords, TIPTOE_CMD_PROVISION_RCV_BASE, t->device.address + c->rcv);
    TIPTOE_PUT(dwords, TIPTOE_CMD_PROVISION_SND_LOG2, t->config.snd_log2);
    TIPTOE_PUT(dwords, TIPTOE_CMD_PROVISION_RCV_LOG2, t->config.rcv_log2);
    TIPTOE_PUT(dwords, TIPTOE_CMD_PROVISION_STOCK, c->flags & STOCKED ? 1 : 0);
    return post(t, c, dwords, TIPTOE_OPCODE_PROVISION);
}

uint32_t toe_window_scale(const struct toe *t)
{
    return t->config.rcv_log2 > 15 ? t->config.rcv_log2 - 15u : 0;
}

static bool post_open(struct toe *t, struct toe_connection *c)
{
    const struct toe_neighbour *n = &t->neighbours[c->neighbour];
    uint32_t dwords[COMMAND_DWORDS] = {0};

    if (n->todo)
        toe_arp_work(t);
    if (n->todo)
        return false; /* NEXT_HOP goes first */
    TIPTOE_PUT(dwords, TIPTOE_CMD_OPEN_LADDR, t->config.ip);
    TIPTOE_PUT(dwords, TIPTOE_CMD_OPEN_FADDR, c->peer_ip);
    TIPTOE_PUT(dwords, TIPTOE_CMD_OPEN_LPORT, c->port);
    TIPTOE_PUT(dwords, TIPTOE_CMD_OPEN_FPORT, c->peer_port);
    TIPTOE_PUT64(dwords, TIPTOE_CMD_OPEN_DMAC, n->mac);
    if (c->neighbour < t->next_hops) {
        TIPTOE_PUT(dwords, TIPTOE_CMD_OPEN_USE_NEXT_HOP, 1);
        TIPTOE_PUT(dwords, TIPTOE_CMD_OPEN_NEXT_HOP, c->neighbour);
    }
    TIPTOE_PUT(dwords, TIPTOE_CMD_OPEN_MSS, t->mss);
    TIPTOE_PUT(dwords, TIPTOE_CMD_OPEN_RCV_SCALE, toe_window_scale(t));
    return post(t, c, dwords, TIPTOE_OPCODE_OPEN);
}

static bool post_release(struct toe *t, struct toe_connection *c)
{
    uint32_t dwords[COMMAND_DWORDS] = {0};

    TIPTOE_PUT(dwords, TIPTOE_CMD_RELEASE_LADDR, t->config.ip);
    TIPTOE_PUT(dwords, TIPTOE_CMD_RELEASE_FADDR, c->peer_ip);
    TIPTOE_PUT(dwords, TIPTOE_CMD_RELEASE_LPORT, c->port);
    TIPTOE_PUT(dwords, TIPTOE_CMD_RELEASE_FPORT, c->peer_port);
    if (!post(t, c, dwords, TIPTOE_OPCODE_RELEASE))
        return false;
    t->answers_awaited++;
    return true;
}

static bool post_close(struct toe *t, struct toe_connection *c)
{
    uint32_t dwords[COMMAND_DWORDS] = {0};

    TIPTOE_PUT(dwords, TIPTOE_CMD_CLOSE_SND_END, c->sent);
    return post(t, c, dwords, TIPTOE_OPCODE_CLOSE);
}

static bool post_abort(struct toe *t, struct toe_connection *c)
{
    uint32_t dwords[COMMAND_DWORDS] = {0};

    return post(t, c, dwords, TIPTOE_OPCODE_ABORT);
}

void toe_id_work(struct toe *t, struct toe_connection *c)
{
    if (t->state != TOE_OK)
        return;
    if (c->todo & DO_PROVISION) {
        if (!post_provision(t, c))
            return;
        c->todo &= (uint8_t)~DO_PROVISION;
        c->flags |= PROVISIONED;
    }
    if (c->todo & DO_OPEN) {
        if (!post_open(t, c))
            return;
        c->todo &= (uint8_t)~DO_OPEN;
        c->flags |= EVENTS_PENDING;
    }
    if (c->todo & DO_CLOSE) {
        if (!post_close(t, c))
            return;
        c->todo &= (uint8_t)~DO_CLOSE;
    }
    if (c->todo & DO_ABORT) {
        if (!post_abort(t, c))
            return;
        c->todo &= (uint8_t)~DO_ABORT;
    }
    if (c->todo & DO_RELEASE && post_release(t, c))
        c->todo &= (uint8_t)~DO_RELEASE;
}

/* ---- where ids are ---- */

static void put_free(struct toe *t, struct toe_connection *c)
{
    if (c->flags & USED)
        t->in_use--;
    if (c->flags & ACTIVE)
        t->active--;
    c->flags = c->todo = 0;
    c->handler = NULL;
    c->context = NULL;
    c->timer = 0;
    c->next = TOE_NOBODY;
    if (t->free_first == TOE_NOBODY)
        t->free_first = c->index;
    else
        t->config.connections[t->free_last].next = c->index;
    t->free_last = c->index;
}

static struct toe_connection *take_free(struct toe *t)
{
    struct toe_connection *c;

    if (t->free_first == TOE_NOBODY)
        return NULL;
    c = &t->config.connections[t->free_first];
    t->free_first = c->next;
    c->generation++;
    c->peer_ip = 0;
    c->port = c->peer_port = 0;
    c->written = c->sent = c->acked = c->arrived = c->consumed = 0;
    c->error = TOE_PENDING;
    c->neighbour = UINT8_MAX;
    c->todo = DO_PROVISION;
    return c;
}

void toe_ids_reset(struct toe *t, bool first)
{
    t->free_first = t->free_last = TOE_NOBODY;
    t->stocked = t->in_use = t->active = t->in_time_wait = 0;
    for (uint16_t n = 0; n < t->config.connection_count; n++) {
        struct toe_connection *c = &t->config.connections[n];
        const uint8_t generation = first ? 0 : c->generation;

        if (!first && c->flags & ATTACHED) { /* until it is closed */
            if (!(c->flags & END_TOLD))
                c->error = TOE_DOWN;
            c->flags &= ATTACHED | END_TOLD | ACTIVE | OPENED | PEER_CLOSED | USED;
            c->todo = 0;
            c->neighbour = UINT8_MAX;
            t->in_use++;
            t->active = (uint16_t)(t->active + (c->flags & ACTIVE ? 1 : 0));
            continue;
        }
        c->toe = t;
        c->index = n;
        c->generation = generation;
        c->flags = 0;
        put_free(t, c);
    }
}

void toe_ids_tell_reset(struct toe *t)
{
    for (uint16_t n = 0; n < t->config.connection_count; n++) {
        struct toe_connection *c = &t->config.connections[n];

        if ((c->flags & (ATTACHED | END_TOLD | PROVISIONED)) == ATTACHED && c->error == TOE_DOWN)
            toe_over(t, c, TOE_DOWN, 0);
    }
}

static uint16_t active_limit(const struct toe *t)
{
    return (uint16_t)(t->config.connection_count - (t->stocking ? t->config.passive : 0));
}

struct toe_connection *toe_id_take(struct toe *t)
{
    struct toe_connection *c = t->active < active_limit(t) ? take_free(t) : NULL;

    if (c) {
        c->flags = USED | ACTIVE;
        t->in_use++;
        t->active++;
    }
    return c;
}

struct toe_connection *toe_id_find(struct toe *t, uint32_t tid)
{
    struct toe_connection *c;

    if ((tid & 0xffff) >= t->config.connection_count)
        return NULL;
    c = &t->config.connections[tid & 0xffff];
    return c->flags & PROVISIONED && tid >> 16 == c->generation ? c : NULL;
}

void toe_id_accepted(struct toe *t, struct toe_connection *c)
{
    c->flags = (uint16_t)((c->flags & ~STOCKED) | USED | EVENTS_PENDING);
    t->stocked--;
    t->in_use++;
    t->counters.accepted++;
}

void toe_ids_replenish(struct toe *t)
{
    if (!t->stocking || t->state != TOE_OK)
        return;
    while (t->in_use - t->active + t->stocked < t->config.passive) {
        struct toe_connection *c = take_free(t);

        if (!c)
            return;
        c->flags = STOCKED;
        t->stocked++;
        toe_id_work(t, c);
    }
}

/* Whether fewer than a quarter of the ids of a kind are left, or on their way back; the oldest TIME_WAIT among them. */
static struct toe_connection *oldest_of_short(struct toe *t, uint16_t kind, unsigned all, unsigned left)
{
    struct toe_connection *oldest = NULL;

    for (uint16_t n = 0; n < t->config.connection_count; n++) {
        struct toe_connection *c = &t->config.connections[n];

        if (!(c->flags & USED) || (c->flags & ACTIVE) != kind || c->flags & LOST)
            continue;
        if (c->flags & RELEASING || (c->flags & IN_TIME_WAIT && c->flags & ABORT_SENT))
            left++;
        else if (c->flags & IN_TIME_WAIT && (!oldest || (int32_t)(c->time_wait_since - oldest->time_wait_since) < 0))
            oldest = c;
    }
    return left < (all + 3) / 4 ? oldest : NULL;
}

void toe_ids_relieve(struct toe *t)
{
    const unsigned active = active_limit(t), passive = t->stocking ? t->config.passive : 0;

    for (unsigned kind = 0; kind < 2; kind++) {
        struct toe_connection *c;

        while (t->in_time_wait &&
               (c = kind ? oldest_of_short(t, ACTIVE, active, active - t->active) : oldest_of_short(t, 0, passive, t->stocked))) {
            t->counters.time_wait_short++;
            toe_abort_now(t, c); /* no RST leaves in TIME_WAIT */
        }
    }
}

/* ---- the way back ---- */

void toe_id_let_go(struct toe *t, struct toe_connection *c)
{
    if (c->flags & (ATTACHED | EVENTS_PENDING | RELEASING | LOST) || !(c->flags & USED))
        return;
    toe_arp_drop(t, c->neighbour);
    c->neighbour = UINT8_MAX;
    if (!(c->flags & PROVISIONED)) {
        put_free(t, c);
        return;
    }
    c->flags |= RELEASING;
    c->todo = DO_RELEASE;
    toe_id_work(t, c);
}

void toe_id_released(struct toe *t, struct toe_connection *c, uint32_t status)
{
    if (!(c->flags & RELEASING))
        t->counters.bad_events++;
    else if (status == TIPTOE_STATUS_OK)
        put_free(t, c);
    else
        toe_id_lose(t, c);
}

void toe_id_lose(struct toe *t, struct toe_connection *c)
{
    if (c->flags & LOST)
        return;
    t->counters.lost_ids++;
    if (c->flags & STOCKED) {
        t->stocked--;
        t->in_use++;
    }
    c->flags = (uint16_t)((c->flags & ~STOCKED) | LOST | USED);
}

unsigned toe_in_use(const struct toe *t)
{
    return t->in_use;
}

unsigned toe_stock(const struct toe *t)
{
    return t->stocked;
}
