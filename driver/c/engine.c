/* The engine as hardware: where its rings lie, bring-up, reset, the poll, and the look whether it gets on.
 * SPDX-License-Identifier: BSD-2-Clause
 */
#include "toe_internal.h"

#include <stdatomic.h>

enum {
    RESET_US = 1000000, /* an engine scrubs its memories in less */
    RETRY_US = 1000000, /* so often is one asked that did not come out of its reset */
    SWEEP_US = 10000,
    BATCH = 32,         /* events handled before the engine may write their entries again */
    LOOKS = 5,          /* so often commands may have stood still */
    HEADERS = 54        /* Ethernet, IPv4, TCP */
};

void toe_fence(const struct toe *t)
{
    atomic_thread_fence(memory_order_release);
    if (t->device.fence)
        t->device.fence(t->device.context);
}

void toe_invalidate(const struct toe *t, uint32_t offset, size_t bytes)
{
    if (t->device.invalidate)
        t->device.invalidate(t->device.context, toe_memory(t, offset), bytes);
}

uint64_t toe_now_us(const struct toe *t)
{
    return t->device.now_us(t->device.context);
}

/* A field of a register by its name in tiptoe.h. */
#define FIELD(value, name) (((value) & name##_MASK) >> name##_SHIFT)

/* ---- memory ---- */

/* The parts of the memory, the largest first: then each is aligned to its size if the memory is to the first one's. */
static bool lay_out(struct toe *t)
{
    const struct toe_config *f = &t->config;
    uint64_t at = 0;

    for (uint32_t log2 = 31; log2 >= 4; log2--) {
        const uint64_t size = UINT64_C(1) << log2;
        const uint64_t before = at;

        for (uint32_t n = 0; n < f->connection_count; n++) {
            if (f->snd_log2 == log2) {
                f->connections[n].snd = (uint32_t)at;
                at += size;
            }
            if (f->rcv_log2 == log2) {
                f->connections[n].rcv = (uint32_t)at;
                at += size;
            }
        }
        if ((uint64_t)TIPTOE_COMMAND_BYTES << f->command_log2 == size) {
            t->command_ring = (uint32_t)at;
            at += size;
        }
        if ((uint64_t)TIPTOE_EVENT_BYTES << f->event_log2 == size) {
            t->event_ring = (uint32_t)at;
            at += size;
        }
        if ((uint64_t)t->slot_bytes << f->frame_log2 == size) {
            t->frame_ring = (uint32_t)at;
            at += size;
        }
        if (before == 0 && at != 0 && t->device.address & (size - 1))
            return false;
        if (at > t->device.bytes)
            return false;
    }
    t->frames_out = (uint32_t)at;
    at += (uint64_t)t->slot_bytes * TOE_FRAMES_OUT;
    return at <= t->device.bytes && at <= UINT32_MAX;
}

static enum toe_error check(struct toe *t)
{
    const struct toe_config *f = &t->config;
    const uint32_t capabilities = toe_read32(t, TIPTOE_REG_CAPABILITIES);
    const uint32_t limits = toe_read32(t, TIPTOE_REG_LIMITS);
    const uint32_t ids = 1u << FIELD(capabilities, TIPTOE_CAPABILITIES_LOG2_CONNECTIONS);
    const uint32_t half_open = 1u << FIELD(capabilities, TIPTOE_CAPABILITIES_LOG2_SYNCACHE);
    const uint32_t width = FIELD(limits, TIPTOE_LIMITS_ADDR_WIDTH);
    const uint32_t least = f->snd_log2 < f->rcv_log2 ? f->snd_log2 : f->rcv_log2;
    const uint32_t most = f->snd_log2 < f->rcv_log2 ? f->rcv_log2 : f->snd_log2;
    uint32_t mtu;

    t->frame_limit = FIELD(limits, TIPTOE_LIMITS_MAX_FRAME_BYTES) |
                     FIELD(limits, TIPTOE_LIMITS_MAX_FRAME_BYTES_HIGH) << 12;
    t->slot_bytes = TIPTOE_HOST_FRAME_SLOT_BYTES;
    while (t->slot_bytes < t->frame_limit + TIPTOE_HOST_FRAME_OFFSET)
        t->slot_bytes <<= 1;
    t->next_hops = (uint16_t)(1u << FIELD(capabilities, TIPTOE_CAPABILITIES_LOG2_NEXT_HOPS));
    t->listener_count = (uint16_t)(1u << FIELD(capabilities, TIPTOE_CAPABILITIES_LOG2_LISTENERS));
    if (t->listener_count > TOE_LISTENERS)
        t->listener_count = TOE_LISTENERS;
    mtu = f->mtu ? f->mtu : 1500;
    if (mtu > t->frame_limit - 14)
        mtu = t->frame_limit - 14;
    if (!f->mac || f->mac >> 40 & 1 || f->mac >> 48 || !f->ip || f->ip >> 28 >= 14 || mtu < 576 || !f->connections ||
        !f->connection_count || f->connection_count > ids || f->passive > f->connection_count || f->command_log2 < 4 ||
        f->command_log2 > 16 || f->event_log2 < 4 || f->event_log2 > 20 || f->frame_log2 < 1 || f->frame_log2 > 15 ||
        least < 12 || most > 24 || UINT32_C(1) << least <= (t->frame_limit > 1514 ? t->frame_limit : 0))
        return TOE_ARGUMENT;
    t->mss = (uint16_t)(mtu - (HEADERS - 14));
    if (f->passive && (!f->half_open || f->half_open_count < half_open + f->passive))
        return TOE_NO_MEMORY;
    if (width < 64 && (t->device.address + t->device.bytes) >> width)
        return TOE_NO_MEMORY;
    return lay_out(t) ? TOE_OK : TOE_NO_MEMORY;
}

/* ---- bring-up ---- */

/* Soft reset: bus transfers end, memories are scrubbed. Whether the engine has come out of it: then the memory is ours alone. */
static bool soft_reset(struct toe *t)
{
    const uint64_t end = toe_now_us(t) + RESET_US;

    toe_write32(t, TIPTOE_REG_IRQ_MASK, 0);
    toe_write32(t, TIPTOE_REG_CONTROL, TIPTOE_CONTROL_SOFT_RESET_MASK);
    do {
        const uint32_t control = toe_read32(t, TIPTOE_REG_CONTROL), status = toe_read32(t, TIPTOE_REG_STATUS);

        if (!(control & TIPTOE_CONTROL_SOFT_RESET_MASK) && status & TIPTOE_STATUS_READY_MASK)
            return true;
    } while (toe_now_us(t) < end);
    return false;
}

static bool is_engine(const struct toe *t)
{
    return toe_read32(t, TIPTOE_REG_ID) == TIPTOE_ID_VALUE &&
           !((toe_read32(t, TIPTOE_REG_VERSION) ^ TIPTOE_VERSION_VALUE) & TIPTOE_VERSION_MAJOR_MASK);
}

static void write_address(const struct toe *t, uint32_t low, uint32_t offset)
{
    const uint64_t address = t->device.address + offset;

    toe_write32(t, low, (uint32_t)address);
    toe_write32(t, low + 4, (uint32_t)(address >> 32));
}

static void write_keys(const struct toe *t, uint32_t limits)
{
    const uint32_t *secret = t->config.secret;

    for (uint32_t n = 0; n < TIPTOE_REG_ISN_KEY_COUNT; n++)
        toe_write32(t, TIPTOE_REG_ISN_KEY + 4 * n, *secret++);
    for (uint32_t n = 0; n < TIPTOE_REG_HASH_KEY_COUNT; n++)
        toe_write32(t, TIPTOE_REG_HASH_KEY + 4 * n, *secret++);
    for (uint32_t n = 0; n < TIPTOE_REG_COOKIE_KEY_COUNT; n++)
        toe_write32(t, TIPTOE_REG_COOKIE_KEY + 4 * n, *secret++);
    if (limits & TIPTOE_LIMITS_TIMESTAMPS_MASK)
        toe_write32(t, TIPTOE_REG_TIMESTAMP_OFFSET, *secret);
}

/* Addresses, rings and keys; then the engine runs. */
static void configure(struct toe *t)
{
    const struct toe_config *f = &t->config;
    const uint32_t limits = toe_read32(t, TIPTOE_REG_LIMITS), known = toe_read32(t, TIPTOE_REG_CONGESTION);
    const uint32_t congestion = known >> TIPTOE_CONGESTION_CUBIC & 1 ? TIPTOE_CONGESTION_CUBIC : TIPTOE_CONGESTION_NEWRENO;
    const uint32_t irq = TIPTOE_IRQ_MASK_EVENT_MASK | TIPTOE_IRQ_MASK_ERROR_MASK;

    toe_write32(t, TIPTOE_REG_MAC_LO, (uint32_t)f->mac);
    toe_write32(t, TIPTOE_REG_MAC_HI, (uint32_t)(f->mac >> 32));
    toe_write32(t, TIPTOE_REG_IP_ADDR, f->ip);
    if (f->tick_cycles)
        toe_write32(t, TIPTOE_REG_TICK_CYCLES, f->tick_cycles);
    toe_write32(t, TIPTOE_REG_CONGESTION_CONTROL,
                congestion << TIPTOE_CONGESTION_CONTROL_DEFAULT_SHIFT | 1000u << TIPTOE_CONGESTION_CONTROL_TICK_US_SHIFT);
    toe_write32(t, TIPTOE_REG_MSL_TICKS, f->time_wait_ms ? f->time_wait_ms : 60000);
    write_keys(t, limits);
    for (size_t n = 0; n < f->register_count; n++)
        toe_write32(t, f->registers[n].address, f->registers[n].value);
    write_address(t, TIPTOE_REG_COMMAND_RING_LO, t->command_ring);
    write_address(t, TIPTOE_REG_EVENT_RING_LO, t->event_ring);
    write_address(t, TIPTOE_REG_FRAME_RING_LO, t->frame_ring);
    toe_write32(t, TIPTOE_REG_COMMAND_RING_LOG2, f->command_log2);
    toe_write32(t, TIPTOE_REG_EVENT_RING_LOG2, f->event_log2);
    toe_write32(t, TIPTOE_REG_FRAME_RING_LOG2, f->frame_log2);
    toe_write32(t, TIPTOE_REG_IRQ_STATUS, irq);
    toe_write32(t, TIPTOE_REG_IRQ_MASK, f->interrupts ? irq : 0);
    toe_fence(t);
    toe_write32(t, TIPTOE_REG_CONTROL,
                TIPTOE_CONTROL_ENABLE_MASK | TIPTOE_CONTROL_RST_UNKNOWN_MASK | TIPTOE_CONTROL_SACK_MASK |
                    TIPTOE_CONTROL_QUICK_ACK_MASK |
                    (f->tick_cycles ? 0 : TIPTOE_CONTROL_EXTERNAL_TICK_MASK) |
                    (f->syn_cookies ? TIPTOE_CONTROL_SYN_COOKIES_MASK : 0) |
                    (limits & TIPTOE_LIMITS_TIMESTAMPS_MASK ? TIPTOE_CONTROL_TIMESTAMPS_MASK : 0) |
                    (limits & TIPTOE_LIMITS_ECN_MASK ? 2u << TIPTOE_CONTROL_ECN_SHIFT : 0)); /* accepted, not offered */
}

/* The engine has come out of its reset: everything anew. */
static void begin(struct toe *t, bool first)
{
    t->now = toe_now_us(t);
    t->watch = t->now + (uint64_t)t->config.watchdog_ms * 1000;
    t->sweep = t->now;
    t->looks = 0;
    t->blocked = t->reset_wanted = false;
    toe_rings_reset(t);
    toe_frames_reset(t);
    toe_ids_reset(t, first);
    configure(t);
    t->state = TOE_OK;
    toe_listeners_reset(t);
    toe_arp_reset(t);
    toe_arp_announce(t);
    toe_ids_replenish(t);
}

enum toe_error toe_start(struct toe *t, const struct toe_device *device, const struct toe_config *config)
{
    enum toe_error error;

    if (!t || !device || !config || !device->write32 || !device->read32 || !device->now_us || !device->memory)
        return TOE_ARGUMENT;
    memset(t, 0, sizeof *t);
    t->device = *device;
    t->config = *config;
    t->state = TOE_DOWN;
    if (!t->config.watchdog_ms)
        t->config.watchdog_ms = 1000;
    if (!t->config.orphan_ms)
        t->config.orphan_ms = 60000;
    if (!is_engine(t))
        return TOE_NO_ENGINE;
    error = check(t);
    if (error)
        return error;
    if (!soft_reset(t))
        return TOE_NOT_READY;
    begin(t, true);
    return TOE_OK;
}

enum toe_error toe_reset(struct toe *t)
{
    if (t->polling)
        return TOE_ARGUMENT;
    t->counters.resets++;
    t->state = TOE_NOT_READY;
    t->watch = toe_now_us(t) + RETRY_US;
    toe_ids_reset(t, false);
    if (!is_engine(t))
        t->state = TOE_NO_ENGINE;
    else if (soft_reset(t))
        begin(t, false);
    t->polling = true;
    toe_ids_tell_reset(t);
    t->polling = false;
    return (enum toe_error)t->state;
}

enum toe_error toe_state(const struct toe *t)
{
    return (enum toe_error)t->state;
}

const struct toe_counters *toe_counters(const struct toe *t)
{
    return &t->counters;
}

uint32_t toe_engine_counter(const struct toe *t, enum tiptoe_counter counter)
{
    return toe_read32(t, TIPTOE_REG_COUNTER + 4 * (uint32_t)counter);
}

/* ---- the poll ---- */

/* Whatever has a `todo` that could not be done at once: only then, since it looks at every connection. */
static void post_what_waits(struct toe *t)
{
    t->blocked = false; /* who finds no room sets it again */
    for (uint16_t n = 0; n < t->config.connection_count; n++)
        if (t->config.connections[n].todo & DO_END)
            toe_over(t, &t->config.connections[n], (enum toe_error)t->config.connections[n].error, 0);
    for (uint16_t n = 0; n < t->listener_count && !t->blocked; n++)
        toe_listener_work(t, n);
    toe_arp_work(t);
    for (uint16_t n = 0; n < t->config.connection_count && !t->blocked; n++)
        toe_id_work(t, &t->config.connections[n]);
}

/* Whether the engine gets on: its own word in STATUS, and commands that stand still. */
static void look(struct toe *t)
{
    const uint32_t status = toe_read32(t, TIPTOE_REG_STATUS);
    const uint32_t stalled = TIPTOE_STATUS_COMMANDS_STALLED_MASK | TIPTOE_STATUS_EVENTS_STALLED_MASK;

    if (status == UINT32_MAX || !(status & TIPTOE_STATUS_READY_MASK)) {
        t->reset_wanted = true;
        return;
    }
    if (status & (stalled | TIPTOE_STATUS_DOORBELLS_STALLED_MASK | TIPTOE_STATUS_HOST_STALLED_MASK))
        toe_write32(t, TIPTOE_REG_STATUS, status);
    t->looks = toe_commands_stand(t) ? (uint8_t)(t->looks + 1) : 0;
    if (status & stalled || t->looks >= LOOKS) {
        t->counters.standstills++;
        t->reset_wanted = true;
    }
}

bool toe_poll(struct toe *t)
{
    uint32_t event[EVENT_DWORDS];
    unsigned handled = 0;

    if (t->polling || t->state == TOE_DOWN)
        return false;
    t->now = toe_now_us(t);
    if (t->state != TOE_OK) {
        if (t->now < t->watch)
            return false;
        toe_reset(t);
        return true;
    }
    t->polling = true;
    /* As many as a ring holds: who is called meanwhile may cause more, and time must be looked at. */
    for (uint32_t most = 1u << t->config.event_log2; most && toe_next_event(t, event); most--) {
        toe_handle(t, event);
        if (++handled % BATCH == 0)
            toe_events_done(t);
    }
    if (handled) {
        toe_events_done(t);
        toe_ids_relieve(t);
    }
    if (t->blocked)
        post_what_waits(t);
    toe_ids_replenish(t);
    if (t->now >= t->sweep) {
        t->sweep = t->now + SWEEP_US;
        toe_connections_sweep(t);
        toe_arp_sweep(t);
    }
    if (t->now >= t->watch) {
        t->watch = t->now + (uint64_t)t->config.watchdog_ms * 1000;
        look(t);
    }
    if (t->config.interrupts) /* behind EVENT_CONSUMER: an event that has come meanwhile sets it again */
        toe_write32(t, TIPTOE_REG_IRQ_STATUS, TIPTOE_IRQ_STATUS_EVENT_MASK | TIPTOE_IRQ_STATUS_ERROR_MASK);
    t->polling = false;
    if (t->reset_wanted)
        toe_reset(t);
    return handled != 0;
}
