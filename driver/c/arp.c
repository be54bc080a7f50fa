/* ARP (RFC 826): answers for our address, and resolves the next hops of active opens, with retries.
 *
 * What is known ages (RFC 1122 section 2.3.2.1). A neighbour that connections use is asked again and keeps its old address
 * until it answers; one that nobody uses is forgotten. A slot below the engine's number of next hops is an entry of that table
 * too, so that open connections follow a neighbour whose MAC address changes. (Accepted ones answer where their SYN came from.)
 * SPDX-License-Identifier: BSD-2-Clause
 */
#include "toe_internal.h"

enum {
    TRIES = 3,
    RETRY_US = 1000000,
    AGE_US = 60000000,
    ARP_BYTES = 28,
    REQUEST = 1,
    REPLY = 2
};

static const uint64_t BROADCAST = UINT64_C(0xffffffffffff);
static const uint8_t ETHERNET_IPV4[6] = {0, 1, 8, 0, 6, 4};

static bool send(struct toe *t, uint32_t operation, uint64_t to, uint64_t target_mac, uint32_t target_ip)
{
    unsigned slot;
    uint8_t *frame = toe_frame_buffer(t, &slot);

    if (!frame)
        return false;
    put48(frame, to);
    put48(frame + 6, t->config.mac);
    put16(frame + 12, 0x0806);
    memcpy(frame + 14, ETHERNET_IPV4, sizeof ETHERNET_IPV4);
    put16(frame + 20, operation);
    put48(frame + 22, t->config.mac);
    put32(frame + 28, t->config.ip);
    put48(frame + 32, target_mac);
    put32(frame + 38, target_ip);
    return toe_frame_out(t, slot, 14 + ARP_BYTES);
}

void toe_arp_announce(struct toe *t)
{
    send(t, REQUEST, BROADCAST, 0, t->config.ip);
}

void toe_arp_reset(struct toe *t)
{
    for (unsigned n = 0; n < TOE_NEIGHBOURS; n++) {
        struct toe_neighbour *b = &t->neighbours[n];

        b->users = 0;
        if (!b->known)
            b->ip = 0;
        b->todo = b->known && n < t->next_hops;
    }
    toe_arp_work(t);
}

void toe_arp_work(struct toe *t)
{
    for (uint32_t n = 0; n < TOE_NEIGHBOURS; n++) {
        uint32_t dwords[COMMAND_DWORDS] = {0};

        if (!t->neighbours[n].todo)
            continue;
        TIPTOE_PUT(dwords, TIPTOE_CMD_NEXT_HOP_INDEX, n);
        TIPTOE_PUT64(dwords, TIPTOE_CMD_NEXT_HOP_DMAC, t->neighbours[n].mac);
        if (!toe_post(t, dwords, TIPTOE_OPCODE_NEXT_HOP, 0))
            return;
        t->neighbours[n].todo = false;
    }
}

static struct toe_neighbour *find(struct toe *t, uint32_t ip)
{
    for (unsigned n = 0; n < TOE_NEIGHBOURS; n++)
        if (t->neighbours[n].ip == ip)
            return &t->neighbours[n];
    return NULL;
}

static void ask(struct toe *t, struct toe_neighbour *b)
{
    if (send(t, REQUEST, BROADCAST, 0, b->ip))
        t->counters.arp_requests++;
    b->tries++;
    b->next = t->now + RETRY_US;
}

uint8_t toe_arp_hold(struct toe *t, uint32_t ip)
{
    struct toe_neighbour *b = find(t, ip);

    if (!b) {
        b = find(t, 0);
        for (unsigned n = 0; !b && n < TOE_NEIGHBOURS; n++)
            if (!t->neighbours[n].users)
                b = &t->neighbours[n];
        if (!b)
            return UINT8_MAX;
        *b = (struct toe_neighbour){.ip = ip};
        t->now = toe_now_us(t);
        ask(t, b);
    }
    b->users++;
    return (uint8_t)(b - t->neighbours);
}

void toe_arp_drop(struct toe *t, uint8_t slot)
{
    if (slot < TOE_NEIGHBOURS && t->neighbours[slot].users)
        t->neighbours[slot].users--;
}

static void learn(struct toe *t, struct toe_neighbour *b, uint64_t mac)
{
    const uint8_t slot = (uint8_t)(b - t->neighbours);

    b->todo |= (!b->known || b->mac != mac) && slot < t->next_hops;
    b->mac = mac;
    b->known = true;
    b->tries = 0;
    b->next = t->now + AGE_US;
    toe_arp_work(t);
    toe_neighbour_answer(t, slot, true);
}

void toe_arp_input(struct toe *t, const uint8_t *packet, size_t length)
{
    struct toe_neighbour *b;
    uint64_t mac;
    uint32_t operation, ip;

    if (length < ARP_BYTES || memcmp(packet, ETHERNET_IPV4, sizeof ETHERNET_IPV4) != 0)
        return;
    operation = get16(packet + 6);
    mac = get48(packet + 8);
    ip = get32(packet + 14);
    if (!mac || mac >> 40 & 1 || (operation != REQUEST && operation != REPLY))
        return;
    if (ip == t->config.ip) {
        t->counters.arp_conflicts += mac != t->config.mac;
        return;
    }
    b = ip ? find(t, ip) : NULL;
    if (b)
        learn(t, b, mac);
    if (operation == REQUEST && get32(packet + 24) == t->config.ip && send(t, REPLY, mac, mac, ip))
        t->counters.arp_answers++;
}

void toe_arp_sweep(struct toe *t)
{
    for (uint8_t n = 0; n < TOE_NEIGHBOURS; n++) {
        struct toe_neighbour *b = &t->neighbours[n];

        if (!b->ip || t->now < b->next)
            continue;
        if (!b->users) {
            b->ip = 0;
            b->known = b->todo = false;
        } else if (b->tries < TRIES) {
            ask(t, b);
        } else { /* whoever waits for it is told; who has a connection goes on with what was known */
            b->tries = 0;
            b->next = b->known ? t->now + AGE_US : t->now; /* who is told may try again at once */
            if (!b->known)
                toe_neighbour_answer(t, n, false);
            if (!b->known && !b->users)
                b->ip = 0;
        }
    }
}
