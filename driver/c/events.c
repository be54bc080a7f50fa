/* What the engine says: snapshots of connections, outcomes of commands, errors. Nothing that it writes is trusted: what cannot be
 * is counted and left out.
 * SPDX-License-Identifier: BSD-2-Clause
 */
#include "toe_internal.h"

/* ---- connections ---- */

static void invalidate_ring(struct toe *t, const struct toe_connection *c, uint32_t from, uint32_t count)
{
    const uint32_t size = UINT32_C(1) << t->config.rcv_log2, at = from & (size - 1);
    const uint32_t first = count < size - at ? count : size - at;

    toe_invalidate(t, c->rcv + at, first);
    if (count > first)
        toe_invalidate(t, c->rcv, count - first);
}

/* Positions since the last snapshot; what is new, as bits for the handler. */
static unsigned progress(struct toe *t, struct toe_connection *c, const uint32_t *e)
{
    const uint32_t fin = TIPTOE_GET(e, TIPTOE_EVT_CONNECTION_PEER_CLOSED); /* counts as one, but is no byte of the ring */
    const uint32_t acked = TIPTOE_GET(e, TIPTOE_EVT_CONNECTION_SND_UNA_POSITION) - c->acked;
    uint32_t arrived = TIPTOE_GET(e, TIPTOE_EVT_CONNECTION_RCV_POSITION) - fin - c->arrived;

    if (c->flags & PEER_CLOSED)
        arrived = 0;
    if (acked > c->sent - c->acked || arrived > (UINT32_C(1) << t->config.rcv_log2) - (c->arrived - c->consumed)) {
        t->counters.bad_positions++;
        return 0;
    }
    invalidate_ring(t, c, c->arrived, arrived);
    c->acked += acked;
    c->arrived += arrived;
    return (acked ? (unsigned)TOE_ACKNOWLEDGED : 0) | (arrived ? (unsigned)TOE_RECEIVED : 0);
}

static enum toe_error why(const struct toe_connection *c, uint32_t reason)
{
    switch (reason) {
    case TIPTOE_REASON_NORMAL:
        return TOE_OK;
    case TIPTOE_REASON_PEER_RESET:
        if (!(c->flags & OPENED))
            return TOE_REFUSED;
        /* Both have closed and we have lost nothing: the peer was in a hurry. */
        return (c->flags & (FIN_SENT | PEER_CLOSED)) == (FIN_SENT | PEER_CLOSED) && c->acked == c->sent ? TOE_OK : TOE_RESET;
    case TIPTOE_REASON_REFUSED:
        return TOE_REFUSED;
    case TIPTOE_REASON_TIMEOUT:
        return TOE_TIMED_OUT;
    case TIPTOE_REASON_LOCAL_ABORT:
        return c->flags & IN_TIME_WAIT ? TOE_OK : c->error == TOE_COMMAND ? TOE_COMMAND : TOE_ABORTED;
    default:
        return TOE_DMA;
    }
}

static void tell(struct toe_connection *c, unsigned what)
{
    if (what && c->flags & ATTACHED)
        c->handler(c, what);
}

void toe_over(struct toe *t, struct toe_connection *c, enum toe_error error, unsigned what)
{
    if (c->flags & IN_TIME_WAIT && !(c->flags & ABORT_SENT))
        t->in_time_wait--;
    t->counters.ended++;
    t->counters.refused += error == TOE_REFUSED;
    t->counters.reset_by_peer += error == TOE_RESET;
    t->counters.timed_out += error == TOE_TIMED_OUT;
    c->flags &= (uint16_t)~(EVENTS_PENDING | IN_TIME_WAIT | RESOLVING);
    c->todo &= DO_PROVISION;
    c->error = (uint8_t)error;
    c->timer = 0;
    toe_arp_drop(t, c->neighbour); /* its next hop may be forgotten */
    c->neighbour = UINT8_MAX;
    if (!(c->flags & END_TOLD)) {
        c->flags |= END_TOLD;
        tell(c, what | TOE_ENDED);
    }
    toe_id_let_go(t, c);
}

static void accept(struct toe *t, struct toe_connection *c, const uint32_t *e)
{
    const bool known = toe_accepted(t, c, TIPTOE_GET(e, TIPTOE_EVT_CONNECTION_SYNCACHE_REF));

    toe_id_accepted(t, c);
    if (!known || !(c->flags & ATTACHED) || !TIPTOE_GET(e, TIPTOE_EVT_CONNECTION_ESTABLISHED)) {
        c->flags = (uint16_t)((c->flags & ~ATTACHED) | END_TOLD);
        if (!TIPTOE_GET(e, TIPTOE_EVT_CONNECTION_TERMINAL))
            toe_abort_now(t, c);
    }
    if (!known) { /* RELEASE needs the four-tuple */
        t->counters.stale_half_open++;
        toe_id_lose(t, c);
    }
}

static void connection_event(struct toe *t, const uint32_t *e)
{
    struct toe_connection *c = toe_id_find(t, TIPTOE_GET(e, TIPTOE_EVT_CONNECTION_TID));
    unsigned what = 0;

    if (c && c->flags & STOCKED) {
        if (!TIPTOE_GET(e, TIPTOE_EVT_CONNECTION_ESTABLISHED) && !TIPTOE_GET(e, TIPTOE_EVT_CONNECTION_TERMINAL))
            return; /* its handshake goes on */
        accept(t, c, e);
    }
    if (!c || (c->flags & (EVENTS_PENDING | RELEASING | LOST)) != EVENTS_PENDING) {
        t->counters.bad_events++;
        return;
    }
    t->counters.bad_doorbells += TIPTOE_GET(e, TIPTOE_EVT_CONNECTION_BAD_DOORBELL);
    if (TIPTOE_GET(e, TIPTOE_EVT_CONNECTION_ESTABLISHED)) {
        if (!(c->flags & OPENED)) {
            c->flags |= OPENED;
            c->error = TOE_OK;
            t->counters.connected += c->flags & ACTIVE ? 1 : 0;
            what |= TOE_ESTABLISHED;
        }
        what |= progress(t, c, e);
        if (TIPTOE_GET(e, TIPTOE_EVT_CONNECTION_PEER_CLOSED) && !(c->flags & PEER_CLOSED)) {
            c->flags |= PEER_CLOSED;
            what |= TOE_PEER_CLOSED;
        }
        if (TIPTOE_GET(e, TIPTOE_EVT_CONNECTION_STATE) == TIPTOE_STATE_TIME_WAIT && c->flags & PEER_CLOSED &&
            !(c->flags & (IN_TIME_WAIT | ABORT_SENT))) {
            c->flags |= IN_TIME_WAIT;
            c->time_wait_since = t->time_waits++;
            t->in_time_wait++;
        }
    }
    if (TIPTOE_GET(e, TIPTOE_EVT_CONNECTION_TERMINAL)) {
        toe_over(t, c, why(c, TIPTOE_GET(e, TIPTOE_EVT_CONNECTION_REASON)), what);
        return;
    }
    if (!(c->flags & ATTACHED)) { /* closed */
        if (what & TOE_RECEIVED)
            toe_abort_now(t, c); /* nobody will read it */
        else if (what & TOE_ACKNOWLEDGED)
            c->timer = t->now + (uint64_t)t->config.orphan_ms * 1000;
    }
    if (what & TOE_ESTABLISHED)
        toe_push(t, c); /* what was sent before */
    tell(c, what);
}

/* ---- commands ---- */

static enum toe_error refusal(uint32_t status)
{
    switch (status) {
    case TIPTOE_STATUS_EXISTS:
        return TOE_IN_USE;
    case TIPTOE_STATUS_TABLE_FULL:
        return TOE_FULL;
    default:
        return TOE_COMMAND;
    }
}

static void command_failed(struct toe *t, uint32_t opcode, uint32_t status, uint32_t argument)
{
    struct toe_connection *c = toe_id_find(t, argument);

    /* The connection has ended meanwhile: its terminal event is on the way. */
    if ((opcode == TIPTOE_OPCODE_CLOSE || opcode == TIPTOE_OPCODE_ABORT) && status == TIPTOE_STATUS_BAD_STATE)
        return;
    t->counters.refused_commands++;
    if (opcode == TIPTOE_OPCODE_NEXT_HOP && argument < TOE_NEIGHBOURS) {
        t->neighbours[argument].known = false; /* it is asked again */
        t->neighbours[argument].next = t->now;
    }
    if (!c || c->flags & LOST)
        return;
    switch (opcode) {
    case TIPTOE_OPCODE_PROVISION:
    case TIPTOE_OPCODE_ABORT:
        toe_id_lose(t, c);
        toe_over(t, c, TOE_COMMAND, 0);
        break;
    case TIPTOE_OPCODE_OPEN:
        if ((c->flags & (ACTIVE | EVENTS_PENDING | OPENED)) == (ACTIVE | EVENTS_PENDING))
            toe_over(t, c, refusal(status), 0);
        break;
    case TIPTOE_OPCODE_CLOSE:
        c->error = TOE_COMMAND;
        toe_abort_now(t, c);
        break;
    default:
        break;
    }
}

static void command_done(struct toe *t, const uint32_t *e)
{
    uint32_t opcode = TIPTOE_GET(e, TIPTOE_EVT_COMMAND_DONE_OPCODE), tag = TIPTOE_GET(e, TIPTOE_EVT_COMMAND_DONE_TAG);
    uint32_t argument = TIPTOE_GET(e, TIPTOE_EVT_COMMAND_DONE_ARGUMENT), written[COMMAND_DWORDS];
    const uint32_t status = TIPTOE_GET(e, TIPTOE_EVT_COMMAND_DONE_STATUS);
    struct toe_connection *c;

    if (opcode == TIPTOE_OPCODE_NOP && status == TIPTOE_STATUS_DMA_ERROR) { /* it could not be read: what was it? */
        if (!toe_written_command(t, argument, written)) {
            t->reset_wanted = true;
            return;
        }
        opcode = TIPTOE_GET(written, TIPTOE_CMD_HEADER_OPCODE);
        tag = TIPTOE_GET(written, TIPTOE_CMD_HEADER_TAG);
        argument = TIPTOE_GET(written, TIPTOE_CMD_PROVISION_TID);
    }
    switch (opcode) {
    case TIPTOE_OPCODE_RELEASE:
        c = toe_id_find(t, argument);
        if (c)
            toe_id_released(t, c, status);
        break;
    case TIPTOE_OPCODE_LISTEN:
    case TIPTOE_OPCODE_UNLISTEN:
        toe_listener_answer(t, argument, opcode, status);
        break;
    case TIPTOE_OPCODE_SEND_FRAME:
        toe_frame_sent(t, tag);
        break;
    default:
        if (status != TIPTOE_STATUS_OK)
            command_failed(t, opcode, status, argument);
        return;
    }
    t->counters.refused_commands += status != TIPTOE_STATUS_OK;
    if (t->answers_awaited)
        t->answers_awaited--;
}

void toe_handle(struct toe *t, const uint32_t *e)
{
    switch (TIPTOE_GET(e, TIPTOE_EVT_TRAILER_TYPE)) {
    case TIPTOE_EVENT_CONNECTION:
        connection_event(t, e);
        break;
    case TIPTOE_EVENT_COMMAND_DONE:
        command_done(t, e);
        break;
    case TIPTOE_EVENT_SYN_RECEIVED:
        toe_syn_received(t, e);
        break;
    case TIPTOE_EVENT_SYNCACHE_GONE:
        toe_syncache_gone(t, e);
        break;
    case TIPTOE_EVENT_FRAME:
        toe_frame_received(t, e);
        break;
    case TIPTOE_EVENT_ERROR:
        t->counters.error_events++;
        if (TIPTOE_GET(e, TIPTOE_EVT_ERROR_CODE) == TIPTOE_ERROR_WATCHDOG)
            t->watch = t->now; /* STATUS says what */
        break;
    default:
        t->counters.bad_events++;
        break;
    }
}
