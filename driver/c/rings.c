/* Command ring and event ring: how driver and engine talk through memory (docs/rings.md). Entries are little endian, whatever the
 * CPU is.
 *
 * A full command ring loses nothing: what has to be posted is written down as `todo` bits where it belongs, and posted by the
 * poll when the engine has read on. So a ring of any size will do, and no queue is needed.
 * SPDX-License-Identifier: BSD-2-Clause
 */
#include "toe_internal.h"

#include <stdatomic.h>

static uint32_t little(const uint8_t *from)
{
    return from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16 | (uint32_t)from[3] << 24;
}

void toe_rings_reset(struct toe *t)
{
    const size_t bytes = (size_t)TIPTOE_EVENT_BYTES << t->config.event_log2;

    t->commands = t->commands_read = t->commands_watched = 0;
    t->events = t->events_watched = t->frames = t->frames_told = 0;
    t->answers_awaited = 0;
    memset(toe_memory(t, t->event_ring), 0, bytes); /* the first pass writes phase 1 */
    toe_fence(t);
}

static uint32_t entry_of(const struct toe *t, uint32_t count)
{
    return t->command_ring + TIPTOE_COMMAND_BYTES * (count & ((1u << t->config.command_log2) - 1));
}

static void learn_head(struct toe *t)
{
    const uint32_t head = toe_read32(t, TIPTOE_REG_COMMAND_HEAD);

    if (t->commands - head <= 1u << t->config.command_log2)
        t->commands_read = head;
}

bool toe_post(struct toe *t, uint32_t *dwords, uint32_t opcode, uint32_t tag)
{
    uint8_t *entry = toe_memory(t, entry_of(t, t->commands));

    if (t->commands - t->commands_read >= 1u << t->config.command_log2) {
        learn_head(t);
        if (t->commands - t->commands_read >= 1u << t->config.command_log2) {
            t->blocked = true;
            return false;
        }
    }
    TIPTOE_PUT(dwords, TIPTOE_CMD_HEADER_OPCODE, opcode);
    TIPTOE_PUT(dwords, TIPTOE_CMD_HEADER_TAG, tag);
    for (uint32_t n = 0; n < COMMAND_DWORDS; n++) {
        entry[4 * n] = (uint8_t)dwords[n];
        entry[4 * n + 1] = (uint8_t)(dwords[n] >> 8);
        entry[4 * n + 2] = (uint8_t)(dwords[n] >> 16);
        entry[4 * n + 3] = (uint8_t)(dwords[n] >> 24);
    }
    toe_fence(t);
    toe_write32(t, TIPTOE_REG_COMMAND_TAIL, ++t->commands);
    return true;
}

bool toe_written_command(const struct toe *t, uint32_t count, uint32_t *dwords)
{
    if (t->commands - count - 1 >= 1u << t->config.command_log2)
        return false;
    for (uint32_t n = 0; n < COMMAND_DWORDS; n++)
        dwords[n] = little(toe_memory(t, entry_of(t, count)) + 4 * n);
    return true;
}

bool toe_commands_stand(struct toe *t)
{
    const uint32_t read = t->commands_watched, events = t->events_watched;

    learn_head(t);
    t->commands_watched = t->commands_read;
    t->events_watched = t->events;
    return (t->commands_read != t->commands || t->answers_awaited) && read == t->commands_read && events == t->events;
}

bool toe_next_event(struct toe *t, uint32_t *dwords)
{
    const uint32_t offset = t->event_ring + TIPTOE_EVENT_BYTES * (t->events & ((1u << t->config.event_log2) - 1));
    const uint32_t phase = ~(t->events >> t->config.event_log2) & 1; /* 1 on the first pass over the ring, 0 on the second */
    const volatile uint8_t *last = toe_memory(t, offset) + TIPTOE_EVENT_PHASE_DWORD * 4 + 3;

    toe_invalidate(t, offset, TIPTOE_EVENT_BYTES);
    if (*last >> 7 != phase)
        return false;
    atomic_thread_fence(memory_order_acquire); /* the phase is read before the rest */
    toe_invalidate(t, offset, TIPTOE_EVENT_BYTES); /* a line that was fetched while it was written has an old beginning */
    for (uint32_t n = 0; n < EVENT_DWORDS; n++)
        dwords[n] = little(toe_memory(t, offset) + 4 * n);
    t->events++;
    t->counters.events++;
    return true;
}

void toe_events_done(struct toe *t)
{
    toe_write32(t, TIPTOE_REG_EVENT_CONSUMER, t->events);
    if (t->frames != t->frames_told) {
        t->frames_told = t->frames;
        toe_write32(t, TIPTOE_REG_FRAME_CONSUMER, t->frames);
    }
}
