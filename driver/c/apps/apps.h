/* Small servers and clients on the driver: echo, HTTP, a sink and a source. Each is an example of a handler, useful on a board.
 * SPDX-License-Identifier: BSD-2-Clause
 */
#ifndef TOE_APPS_H
#define TOE_APPS_H

#include "../toe.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A peer from which nothing is heard for so long is given up: its cable may be pulled. */
#define APP_IDLE_US 60000000u

/* ---- echo.c: what comes goes back ---- */

enum toe_error echo_listen(struct toe *toe, uint16_t port);

/* ---- pattern.c: bytes that both ends can compute ---- */

/* Byte n is byte n % 4, the lowest first, of the 32-bit word 2654435761 * (n / 4). */
void pattern_fill(uint8_t *to, uint64_t from, size_t length);

/* ---- http.c: GET and HEAD of /bytes/N (N bytes of the pattern) and of / (a page of counters) ---- */

#define HTTP_LINE_BYTES 128u

struct http_client {
    char line[HTTP_LINE_BYTES];
    uint64_t left, position; /* of the body that is being sent */
    uint64_t skip;           /* of the request's body */
    uint16_t length;         /* of the line so far */
    uint16_t status;         /* of the answer to the request being read; 0: none yet */
    uint8_t state, method, minor;
    bool keep, host, chunked, pattern;
};

struct http_server {
    struct http_client *clients; /* as many as the driver has connections: toe_index() tells which */
    uint32_t requests, bad_requests, served; /* `served`: answers sent to their last byte */
    uint32_t idle_ms;            /* a client that does nothing for so long is closed; 0: 30 000 */
};

/* `server` is set up by the caller; it and its clients stay as long as the driver runs. */
enum toe_error http_listen(struct toe *toe, uint16_t port, struct http_server *server);

/* ---- stream.c: a sink that counts, a source that sends: for nc and its like ---- */

struct stream {
    uint64_t bytes, left, from; /* done; of the source: still to be sent; when it began, microseconds */
    uint64_t until;             /* the source ends then; 0: by bytes */
    uint8_t state, length;
    char line[30];
};

struct streams {
    struct stream *table; /* as many as the driver has connections, zero at first */
    uint64_t sunk, sourced; /* bytes of all connections */
    uint32_t finished;
    enum toe_error last;  /* how the last one ended */
};

/* Takes everything; when the peer has closed, it is told "N bytes in M us" and closed. */
enum toe_error sink_listen(struct toe *toe, uint16_t port, struct streams *streams);
/* Waits for a line "bytes N" or "seconds N", sends so much of the pattern, and closes. */
enum toe_error source_listen(struct toe *toe, uint16_t port, struct streams *streams);
/* The same to a sink that we connect to: `bytes` 0: for `seconds`. */
enum toe_error source_connect(struct toe *toe, uint32_t ip, uint16_t port, uint64_t bytes, uint32_t seconds,
                              struct streams *streams);

/* ---- text.c ---- */

struct text {
    char *at;
    size_t room; /* what does not fit is left out */
    size_t length;
};

void text_string(struct text *text, const char *string);
void text_number(struct text *text, uint64_t number);
/* A decimal number at `*from`, moved on behind it; false: there is none, or it is more than 2^53. */
bool text_parse(const char **from, uint64_t *number);
/* Whether `string` begins with `what`, in letters of either case. */
bool text_begins(const char *string, const char *what);

#ifdef __cplusplus
}
#endif

#endif
