/* An HTTP/1.1 server (RFC 9112) of generated pages: GET and HEAD, keep-alive, requests one after the other or all at once.
 *
 * A client is served from its connection's handler as far as there is data and room; nobody waits for anybody. Lines are read one
 * at a time into a buffer a client: the rest of the request stays in the receive ring, and its window keeps the client back.
 * SPDX-License-Identifier: BSD-2-Clause
 */
#include "apps.h"

enum { REQUEST_LINE, HEADERS, SKIP, BODY, CLOSING };
enum { NONE, GET, HEAD, OTHER };
enum {
    ANSWER_ROOM = 1536,       /* the longest head and page */
    PAGE_ROOM = 1200,
    CLOSING_US = 2000000,     /* so long may a client that we have closed go on */
    REQUESTS_AT_ONCE = 64
};

static struct http_client *client_of(struct toe_connection *c)
{
    struct http_server *server = toe_context(c);

    return &server->clients[toe_index(c)];
}

/* ---- requests ---- */

static void next_request(struct http_client *h)
{
    h->state = REQUEST_LINE;
    h->length = 0;
    h->status = 0;
    h->skip = h->left = h->position = 0;
    h->keep = h->host = h->chunked = h->pattern = false;
}

/* "GET /bytes/10 HTTP/1.1" */
static void request_line(struct http_client *h)
{
    const char *at = h->line;

    h->method = text_begins(at, "GET ") ? GET : text_begins(at, "HEAD ") ? HEAD : OTHER;
    while (*at > ' ')
        at++;
    if (at == h->line || *at != ' ' || at[1] != '/') {
        h->status = 400;
        return;
    }
    at++;
    if (text_begins(at, "/bytes/")) {
        at += 7;
        h->pattern = true;
        h->status = text_parse(&at, &h->left) && *at == ' ' ? 200 : 404;
    } else {
        h->status = at[1] == ' ' ? 200 : 404;
    }
    while (*at > ' ')
        at++;
    if (!text_begins(at, " HTTP/1.") || (at[8] != '0' && at[8] != '1') || at[9]) {
        h->status = 400;
        return;
    }
    h->minor = (uint8_t)(at[8] - '0');
    h->keep = h->minor == 1;
    if (h->method == OTHER)
        h->status = 405;
    h->state = HEADERS;
}

static const char *value(const char *line)
{
    while (*line != ':')
        line++;
    do
        line++;
    while (*line == ' ' || *line == '\t');
    return line;
}

static void header(struct http_client *h)
{
    const char *at = h->line;

    while (*at > ' ' && *at != ':')
        at++;
    if (*at != ':' || at == h->line) {
        h->status = 400;
    } else if (text_begins(h->line, "host:")) {
        h->host = true;
    } else if (text_begins(h->line, "connection:")) {
        h->keep = text_begins(value(h->line), "close") ? false : h->keep || text_begins(value(h->line), "keep-alive");
    } else if (text_begins(h->line, "content-length:")) {
        at = value(h->line);
        if (!text_parse(&at, &h->skip) || *at)
            h->status = 400;
    } else if (text_begins(h->line, "transfer-encoding:")) {
        h->chunked = true;
    }
}

/* A line has come: what it says, and whether the request is complete. */
static bool line(struct http_client *h)
{
    if (h->length && h->line[h->length - 1] == '\r')
        h->length--;
    h->line[h->length] = 0;
    if (h->state == REQUEST_LINE) {
        if (h->length) /* RFC 9112 section 2.2: an empty line before a request is nothing */
            request_line(h);
    } else if (h->length) {
        header(h);
    } else {
        if (h->minor == 1 && !h->host)
            h->status = 400;
        if (h->chunked) {
            h->status = 501;
            h->keep = false;
        }
        return true;
    }
    h->length = 0;
    return h->status == 400;
}

/* Read until a request is complete; false: there is no more just now. */
static bool read_request(struct toe_connection *c, struct http_client *h)
{
    const uint8_t *data;
    size_t length;

    while ((length = toe_received(c, &data)) != 0) {
        for (size_t n = 0; n < length; n++) {
            if (data[n] != '\n') {
                if (!data[n])
                    h->status = 400;
                else if (h->length < HTTP_LINE_BYTES - 1)
                    h->line[h->length++] = (char)data[n];
                else if (h->state == REQUEST_LINE)
                    h->status = 414; /* of longer headers the beginning is enough */
                if (h->status != 400 && h->status != 414)
                    continue;
            }
            if (h->status == 414 || line(h) || h->status == 400) {
                toe_consumed(c, n + 1);
                return true;
            }
        }
        toe_consumed(c, length);
    }
    return false;
}

/* ---- answers ---- */

static const char *reason(unsigned status)
{
    switch (status) {
    case 200: return "200 OK";
    case 400: return "400 Bad Request";
    case 404: return "404 Not Found";
    case 405: return "405 Method Not Allowed\r\nAllow: GET, HEAD";
    case 414: return "414 URI Too Long";
    default: return "501 Not Implemented";
    }
}

static void row(struct text *page, const char *name, uint64_t number)
{
    text_string(page, name);
    text_string(page, " ");
    text_number(page, number);
    text_string(page, "\n");
}

static void status_page(struct text *page, struct toe *t, const struct http_server *server)
{
    const struct toe_counters *n = toe_counters(t);

    row(page, "uptime_us", toe_now_us(t));
    row(page, "connections", toe_in_use(t));
    row(page, "stock", toe_stock(t));
    row(page, "accepted", n->accepted);
    row(page, "connected", n->connected);
    row(page, "ended", n->ended);
    row(page, "reset_by_peer", n->reset_by_peer);
    row(page, "timed_out", n->timed_out);
    row(page, "time_wait_short", n->time_wait_short);
    row(page, "events", n->events);
    row(page, "refused_commands", n->refused_commands);
    row(page, "lost_ids", n->lost_ids);
    row(page, "resets", n->resets);
    row(page, "arp_answers", n->arp_answers);
    row(page, "echoes", n->echoes);
    row(page, "requests", server->requests);
    row(page, "bad_requests", server->bad_requests);
    row(page, "served", server->served);
    row(page, "rx_frames", toe_engine_counter(t, TIPTOE_COUNTER_RX_FRAMES));
    row(page, "tx_frames", toe_engine_counter(t, TIPTOE_COUNTER_TX_FRAMES));
    row(page, "retransmits", toe_engine_counter(t, TIPTOE_COUNTER_TX_RETRANSMITS));
    row(page, "rto_expired", toe_engine_counter(t, TIPTOE_COUNTER_RTO_EXPIRED));
}

/* The head, and a short page behind it; the pattern follows by and by. There is room. */
static void answer(struct toe_connection *c, struct http_client *h)
{
    struct http_server *server = toe_context(c);
    char page_text[PAGE_ROOM], head_text[ANSWER_ROOM - PAGE_ROOM];
    struct text page = {page_text, sizeof page_text, 0}, head = {head_text, sizeof head_text, 0};
    const bool ok = h->status == 200;
    uint8_t *space;

    server->requests++;
    if (h->status == 400 || h->status == 414) {
        server->bad_requests++;
        h->keep = false;
    }
    if (!ok) {
        h->pattern = false;
        for (const char *at = reason(h->status); *at && *at != '\r'; at++)
            page_text[page.length++] = *at;
        text_string(&page, "\n");
    } else if (!h->pattern) {
        status_page(&page, toe_of(c), server);
    }
    text_string(&head, "HTTP/1.1 ");
    text_string(&head, reason(h->status));
    text_string(&head, "\r\nContent-Type: ");
    text_string(&head, h->pattern ? "application/octet-stream" : "text/plain");
    text_string(&head, "\r\nContent-Length: ");
    text_number(&head, h->pattern ? h->left : page.length);
    text_string(&head, h->keep ? "\r\n" : "\r\nConnection: close\r\n");
    if (h->keep && !h->minor)
        text_string(&head, "Connection: keep-alive\r\n");
    text_string(&head, "X-Aligned:"); /* the body begins at a whole word of the ring, where it is generated fastest */
    if (toe_send_space(c, &space))
        text_string(&head, &"   "[((uintptr_t)space + head.length + 3) & 3]);
    text_string(&head, "\r\n\r\n");
    toe_send(c, head.at, head.length);
    if (h->method == HEAD)
        h->left = 0;
    else if (!h->pattern)
        toe_send(c, page.at, page.length);
    if (!h->pattern)
        h->left = 0;
    h->state = BODY;
}

static void send_body(struct toe_connection *c, struct http_client *h)
{
    uint8_t *space;
    size_t room;

    while (h->left && (room = toe_send_space(c, &space)) != 0) {
        if (room > h->left)
            room = (size_t)h->left;
        pattern_fill(space, h->position, room);
        toe_sent(c, room);
        h->position += room;
        h->left -= room;
    }
}

/* ---- clients ---- */

static void discard(struct toe_connection *c, uint64_t *count)
{
    const size_t there = toe_available(c), some = there < *count ? there : (size_t)*count;

    toe_consumed(c, some);
    *count -= some;
}

static void serve(struct toe_connection *c, struct http_client *h)
{
    struct http_server *server = toe_context(c);

    for (unsigned n = 0; n < REQUESTS_AT_ONCE; n++) {
        if (h->state == REQUEST_LINE || h->state == HEADERS) {
            if (!read_request(c, h)) {
                if (toe_peer_closed(c))
                    toe_close(c);
                return;
            }
            h->state = SKIP;
        }
        if (h->state == SKIP) {
            if (h->keep)
                discard(c, &h->skip);
            else
                h->skip = 0;
            if (h->skip && toe_peer_closed(c)) {
                toe_close(c);
                return;
            }
            if (h->skip || toe_send_room(c) < ANSWER_ROOM)
                return;
            answer(c, h);
        }
        send_body(c, h);
        if (h->left)
            return;
        server->served++;
        if (!h->keep) { /* the client may still be sending: a reset now would take the answer from it */
            h->state = CLOSING;
            toe_shutdown(c);
            toe_set_timer(c, CLOSING_US);
            return;
        }
        next_request(h);
    }
    toe_set_timer(c, 1); /* the others first */
}

static void http(struct toe_connection *c, unsigned what)
{
    struct http_server *server = toe_context(c);
    struct http_client *h = client_of(c);

    if (what & TOE_ESTABLISHED)
        next_request(h);
    if (what & TOE_ENDED) {
        toe_close(c);
        return;
    }
    if (what & TOE_TIMER && !(h->state == REQUEST_LINE && toe_available(c))) {
        if (h->state != CLOSING || toe_unacknowledged(c))
            toe_abort(c);
        toe_close(c);
        return;
    }
    if (h->state == CLOSING) {
        toe_consumed(c, toe_available(c));
        if (toe_peer_closed(c))
            toe_close(c);
        return;
    }
    toe_set_timer(c, server->idle_ms ? server->idle_ms * 1000 : 30000000);
    serve(c, h);
}

enum toe_error http_listen(struct toe *t, uint16_t port, struct http_server *server)
{
    return toe_listen(t, port, http, server);
}
