/* Frames of no connection: those that the engine leaves to us, and those that we send. ICMP echo is answered here (RFC 1122
 * section 3.2.2.6).
 * SPDX-License-Identifier: BSD-2-Clause
 */
#include "toe_internal.h"

enum { ETHERNET = 14, LEAST = 60, IPV4 = 20, ECHO = 8 };

void toe_frames_reset(struct toe *t)
{
    t->frames_out_busy = 0;
}

/* ---- out ---- */

uint8_t *toe_frame_buffer(struct toe *t, unsigned *slot)
{
    for (unsigned n = 0; n < TOE_FRAMES_OUT; n++)
        if (!(t->frames_out_busy >> n & 1)) {
            *slot = n;
            return toe_memory(t, t->frames_out + n * t->slot_bytes);
        }
    t->counters.frames_dropped++;
    return NULL;
}

bool toe_frame_out(struct toe *t, unsigned slot, size_t length)
{
    const uint32_t offset = t->frames_out + slot * t->slot_bytes;
    uint32_t dwords[COMMAND_DWORDS] = {0};

    if (length < LEAST) {
        memset(toe_memory(t, offset) + length, 0, LEAST - length);
        length = LEAST;
    }
    TIPTOE_PUT64(dwords, TIPTOE_CMD_SEND_FRAME_ADDR, t->device.address + offset);
    TIPTOE_PUT(dwords, TIPTOE_CMD_SEND_FRAME_LENGTH, length);
    if (!toe_post(t, dwords, TIPTOE_OPCODE_SEND_FRAME, slot + 1)) {
        t->counters.frames_dropped++; /* whoever sends frames can do without one */
        return false;
    }
    t->frames_out_busy |= (uint8_t)(1u << slot);
    t->answers_awaited++;
    t->counters.frames_out++;
    return true;
}

void toe_frame_sent(struct toe *t, uint32_t tag)
{
    if (tag && tag <= TOE_FRAMES_OUT)
        t->frames_out_busy &= (uint8_t)~(1u << (tag - 1));
    else
        t->counters.bad_events++;
}

bool toe_send_frame(struct toe *t, const uint8_t *frame, size_t length)
{
    unsigned slot;
    uint8_t *buffer;

    if (t->state != TOE_OK || length < ETHERNET || length > t->frame_limit)
        return false;
    buffer = toe_frame_buffer(t, &slot);
    if (!buffer)
        return false;
    memcpy(buffer, frame, length);
    return toe_frame_out(t, slot, length);
}

/* ---- ICMP echo ---- */

static uint32_t sum(const uint8_t *from, uint32_t length)
{
    uint32_t total = 0;

    for (uint32_t n = 0; n + 1 < length; n += 2)
        total += get16(from + n);
    if (length & 1)
        total += (uint32_t)from[length - 1] << 8;
    while (total >> 16)
        total = (total & 0xffff) + (total >> 16);
    return total;
}

/* Whether the frame is a ping of ours; then it was answered, if there was room. */
static bool echo(struct toe *t, const uint8_t *frame, size_t length)
{
    const uint8_t *ip = frame + ETHERNET;
    uint32_t header, total, check;
    uint8_t *out;
    unsigned slot;

    if (length < ETHERNET + IPV4 + ECHO || ip[0] >> 4 != 4 || ip[9] != 1 || get32(ip + 16) != t->config.ip)
        return false;
    header = (ip[0] & 15u) * 4;
    total = get16(ip + 2);
    if (header < IPV4 || total < header + ECHO || total > length - ETHERNET || get16(ip + 6) & 0x3fff ||
        sum(ip, header) != 0xffff)
        return false; /* fragments are nobody's */
    if (ip[header] != 8 || ip[header + 1] != 0 || sum(ip + header, total - header) != 0xffff || get32(ip + 12) >> 28 >= 14 ||
        frame[6] & 1)
        return false;
    out = toe_frame_buffer(t, &slot);
    if (!out)
        return true;
    memcpy(out, frame + 6, 6);
    put48(out + 6, t->config.mac);
    memcpy(out + 12, frame + 12, 2 + total);
    ip = out + ETHERNET;
    put32(out + ETHERNET + 16, get32(ip + 12));
    put32(out + ETHERNET + 12, t->config.ip);
    out[ETHERNET + 8] = 64;
    put16(out + ETHERNET + 10, 0);
    put16(out + ETHERNET + 10, ~sum(ip, header) & 0xffff);
    out[ETHERNET + header] = 0;
    check = get16(ip + header + 2) + 0x0800u; /* RFC 1624: the type was 8 */
    put16(out + ETHERNET + header + 2, (check & 0xffff) + (check >> 16));
    if (toe_frame_out(t, slot, ETHERNET + total))
        t->counters.echoes++;
    return true;
}

/* ---- in ---- */

void toe_frame_received(struct toe *t, const uint32_t *e)
{
    const uint32_t slots = 1u << t->config.frame_log2, slot = TIPTOE_GET(e, TIPTOE_EVT_FRAME_SLOT) & (slots - 1);
    const uint32_t length = TIPTOE_GET(e, TIPTOE_EVT_FRAME_LENGTH);
    const uint32_t offset = t->frame_ring + slot * t->slot_bytes + TIPTOE_HOST_FRAME_OFFSET;
    const uint8_t *frame = toe_memory(t, offset);

    if (slot != (t->frames & (slots - 1)) || (length && (length < ETHERNET || length > t->frame_limit))) {
        t->counters.bad_events++;
        return;
    }
    t->frames++; /* its slot is free again when the poll says so, behind this */
    if (!length) {
        t->counters.frames_dropped++; /* it could not be written */
        return;
    }
    t->counters.frames_in++;
    toe_invalidate(t, offset, length);
    if (get16(frame + 12) == 0x0806)
        toe_arp_input(t, frame + ETHERNET, length - ETHERNET);
    else if (!(get16(frame + 12) == 0x0800 && echo(t, frame, length)) && t->config.frame)
        t->config.frame(t->config.frame_context, frame, length);
}
