/* A sink and a source of bytes, to measure with nc or a second board: what iperf does, without its control connection.
 * SPDX-License-Identifier: BSD-2-Clause
 */
#include "apps.h"

enum { ASKED, SINK, SOURCE, CLOSING };
enum { QUANTUM = 16384 }; /* bytes written before the time is looked at */

static struct stream *stream_of(struct toe_connection *c)
{
    struct streams *all = toe_context(c);

    return &all->table[toe_index(c)];
}

static void finish(struct toe_connection *c)
{
    struct streams *all = toe_context(c);

    stream_of(c)->state = ASKED; /* for the next one of this number */
    all->finished++;
    all->last = toe_status(c);
    toe_close(c);
}

/* Whether the connection goes on; a peer from which nothing is heard is given up. */
static bool goes_on(struct toe_connection *c, unsigned what)
{
    if (what & TOE_TIMER)
        toe_abort(c);
    toe_set_timer(c, APP_IDLE_US);
    return !(what & (TOE_ENDED | TOE_TIMER));
}

static void drain(struct toe_connection *c)
{
    toe_consumed(c, toe_available(c));
}

/* ---- sink ---- */

static void answer(struct toe_connection *c, const struct stream *s)
{
    char line[64];
    struct text text = {line, sizeof line, 0};

    text_number(&text, s->bytes);
    text_string(&text, " bytes in ");
    text_number(&text, toe_now_us(toe_of(c)) - s->from);
    text_string(&text, " us\n");
    toe_send(c, line, text.length);
}

static void sink(struct toe_connection *c, unsigned what)
{
    struct streams *all = toe_context(c);
    struct stream *s = stream_of(c);

    if (what & TOE_ESTABLISHED)
        *s = (struct stream){.state = SINK, .from = toe_now_us(toe_of(c))};
    s->bytes += toe_available(c);
    all->sunk += toe_available(c);
    drain(c);
    if (goes_on(c, what)) {
        if (!toe_peer_closed(c))
            return;
        answer(c, s);
    }
    finish(c);
}

enum toe_error sink_listen(struct toe *t, uint16_t port, struct streams *streams)
{
    return toe_listen(t, port, sink, streams);
}

/* ---- source ---- */

/* "bytes N" or "seconds N"; false: it is neither. */
static bool understood(struct toe_connection *c, struct stream *s)
{
    const char *at = s->line;
    const bool bytes = text_begins(at, "bytes "), seconds = text_begins(at, "seconds ");
    uint64_t number;

    at += bytes ? 6 : 8;
    if (!(bytes || seconds) || !text_parse(&at, &number) || *at || (seconds && number > 86400))
        return false;
    s->from = toe_now_us(toe_of(c));
    s->until = seconds ? s->from + number * 1000000 : 0;
    s->left = seconds ? UINT64_MAX : number;
    s->state = SOURCE;
    return true;
}

static void read_line(struct toe_connection *c, struct stream *s)
{
    char letter;

    while (s->state == ASKED && toe_receive(c, &letter, 1)) {
        if (letter == '\r')
            continue;
        if (letter != '\n' && s->length < sizeof s->line - 1u) {
            s->line[s->length++] = letter;
            continue;
        }
        s->line[s->length] = 0;
        if (letter != '\n' || !understood(c, s)) {
            static const char usage[] = "bytes N or seconds N\n";

            toe_send(c, usage, sizeof usage - 1);
            s->state = CLOSING;
            toe_shutdown(c);
        }
    }
    if (s->state == ASKED && toe_peer_closed(c)) {
        s->state = CLOSING;
        toe_shutdown(c);
    }
}

static void write_some(struct toe_connection *c, struct stream *s)
{
    struct streams *all = toe_context(c);
    uint8_t *space;
    size_t room;

    while ((room = toe_send_space(c, &space)) != 0 && s->left) {
        if (s->until && toe_now_us(toe_of(c)) >= s->until) {
            s->left = 0;
            break;
        }
        if (room > QUANTUM)
            room = QUANTUM;
        if (room > s->left)
            room = (size_t)s->left;
        pattern_fill(space, s->bytes, room);
        toe_sent(c, room);
        s->bytes += room;
        s->left -= room;
        all->sourced += room;
    }
    if (!s->left) {
        s->state = CLOSING;
        toe_shutdown(c);
    }
}

static void source(struct toe_connection *c, unsigned what)
{
    struct stream *s = stream_of(c);

    if (!goes_on(c, what)) {
        finish(c);
        return;
    }
    if (what & TOE_ESTABLISHED && s->state != SOURCE)
        *s = (struct stream){.state = ASKED};
    if (s->state == ASKED)
        read_line(c, s);
    if (s->state == SOURCE)
        write_some(c, s);
    if (s->state != ASKED)
        drain(c);
    if (s->state == CLOSING && toe_peer_closed(c) && !toe_unacknowledged(c))
        finish(c);
}

enum toe_error source_listen(struct toe *t, uint16_t port, struct streams *streams)
{
    return toe_listen(t, port, source, streams);
}

enum toe_error source_connect(struct toe *t, uint32_t ip, uint16_t port, uint64_t bytes, uint32_t seconds,
                              struct streams *streams)
{
    struct toe_connection *c;
    const enum toe_error error = toe_connect(t, 0, ip, port, source, streams, &c);
    const uint64_t now = toe_now_us(t);

    if (!error)
        streams->table[toe_index(c)] = (struct stream){
            .state = SOURCE,
            .left = bytes ? bytes : UINT64_MAX,
            .from = now,
            .until = bytes ? 0 : now + seconds * UINT64_C(1000000),
        };
    return error;
}
