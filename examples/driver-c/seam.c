/* SPDX-License-Identifier: BSD-2-Clause */
#include "seam.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { ERROR, HELLO, READ, WRITE, LOAD, STORE, WAIT };
enum { HEAD = 16, WELCOME = 32, LONGEST = 1 << 20, VERSION = 1 };

static void put(uint8_t *at, uint64_t value, int bytes)
{
    for (int n = 0; n < bytes; n++)
        at[n] = (uint8_t)(value >> 8 * n);
}

static uint64_t get(const uint8_t *at, int bytes)
{
    uint64_t value = 0;

    for (int n = 0; n < bytes; n++)
        value |= (uint64_t)at[n] << 8 * n;
    return value;
}

static void fail(const char *why)
{
    fprintf(stderr, "error: %s\n", why);
    exit(1);
}

static void transmit(int socket, const uint8_t *data, size_t length)
{
    while (length) {
        const ssize_t sent = send(socket, data, length, MSG_NOSIGNAL);

        if (sent <= 0)
            fail("the simulated engine has gone");
        data += sent;
        length -= (size_t)sent;
    }
}

static void receive(int socket, uint8_t *data, size_t length)
{
    while (length) {
        const ssize_t came = recv(socket, data, length, 0);

        if (came <= 0)
            fail("the simulated engine has gone");
        data += came;
        length -= (size_t)came;
    }
}

/* A request and its answer, of which `room` bytes are wanted; returns the answer's argument. */
static uint64_t ask(struct seam *s, uint32_t kind, uint64_t argument, const void *data, size_t length, void *answer, size_t room)
{
    uint8_t head[HEAD];
    size_t told;

    put(head, kind, 4);
    put(head + 4, length, 4);
    put(head + 8, argument, 8);
    transmit(s->socket, head, HEAD);
    if (length)
        transmit(s->socket, data, length);
    receive(s->socket, head, HEAD);
    told = (size_t)get(head + 4, 4);
    if (get(head, 4) != kind) {
        uint8_t text[512] = {0};

        receive(s->socket, text, told < sizeof text ? told : sizeof text - 1);
        fail((const char *)text);
    }
    if (told != room)
        fail("an answer of another length than was asked for");
    if (room)
        receive(s->socket, answer, room);
    return get(head + 8, 8);
}

void seam_open(struct seam *s, const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    uint8_t told[WELCOME];

    if (strlen(path) >= sizeof address.sun_path)
        fail("the socket's path is too long");
    strcpy(address.sun_path, path);
    s->socket = socket(AF_UNIX, SOCK_STREAM, 0);
    if (s->socket < 0 || connect(s->socket, (struct sockaddr *)&address, sizeof address))
        fail("cannot connect: is `tiptoe serve` running?");
    ask(s, HELLO, VERSION, NULL, 0, told, sizeof told);
    s->memory_bytes = get(told, 8);
    s->ip = (uint32_t)get(told + 8, 4);
    s->peer_ip = (uint32_t)get(told + 12, 4);
    s->mac = get(told + 16, 8);
    s->peer_mac = get(told + 24, 8);
}

void seam_close(struct seam *s)
{
    close(s->socket);
}

uint32_t seam_read(struct seam *s, uint32_t reg)
{
    return (uint32_t)ask(s, READ, reg, NULL, 0, NULL, 0);
}

void seam_write(struct seam *s, uint32_t reg, uint32_t value)
{
    uint8_t word[4];

    put(word, value, 4);
    ask(s, WRITE, reg, word, sizeof word, NULL, 0);
}

void seam_load(struct seam *s, uint64_t address, void *data, size_t length)
{
    uint8_t *at = data;

    while (length) {
        const size_t some = length < LONGEST ? length : LONGEST;
        uint8_t word[4];

        put(word, some, 4);
        ask(s, LOAD, address, word, sizeof word, at, some);
        at += some;
        address += some;
        length -= some;
    }
}

void seam_store(struct seam *s, uint64_t address, const void *data, size_t length)
{
    const uint8_t *at = data;

    while (length) {
        const size_t some = length < LONGEST ? length : LONGEST;

        ask(s, STORE, address, at, some, NULL, 0);
        at += some;
        address += some;
        length -= some;
    }
}

uint64_t seam_wait(struct seam *s, uint64_t timeout_us, unsigned *events)
{
    uint8_t word[4];
    const uint64_t now = ask(s, WAIT, timeout_us, NULL, 0, word, sizeof word);

    if (events)
        *events = (unsigned)get(word, 4);
    return now;
}
