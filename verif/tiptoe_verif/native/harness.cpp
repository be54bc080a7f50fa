// The clock loop of the harness, and its C interface for native/harness.py.
#include "harness.h"

#include <poll.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace {
uint64_t clock_ns(clockid_t clock) {
    timespec now;
    clock_gettime(clock, &now);
    return uint64_t(now.tv_sec) * 1000000000ull + uint64_t(now.tv_nsec);
}
bool readable(int descriptor) {
    if (descriptor < 0) return false;
    pollfd entry{descriptor, POLLIN, 0};
    return poll(&entry, 1, 0) > 0;
}
constexpr size_t TAP_QUEUE = 32;  // frames taken from the TAP ahead of the engine
// What comes in has the pace at which the engine can write it to host memory, were all of it the host's own: whole frames, and
// events that tell of them and of the answers. Else the engine loses what in the TAP can wait.
constexpr uint64_t TAP_SPACING = 48;  // cycles between frames at least
constexpr uint64_t TAP_EVENTS = 24;   // cycles beyond those in which a frame is written
constexpr uint64_t TAP_BURST = 192;   // cycles that frames may be ahead
constexpr uint64_t MAX_TICK_BACKLOG = 1000;
constexpr uint64_t HALF_PERIOD_PS = 4000;  // of the clock in a waveform
constexpr uint64_t MAX_REST_TICKS = 100;  // of them are given together at most, after a rest
}  // namespace

void Harness::reset(unsigned cycles) {
    memory.reset();
    registers.reset();
    source.reset();
    sink.reset();
    context.set(top->tick, 0);
    context.set(top->rst, 1);
    for (unsigned i = 0; i < cycles; i++) clock();
    context.set(top->rst, 0);
    clock();
}

// At the rising edge the inputs set before it enter the wrapper (see native/wrapper.py), and all outputs settle for the
// new cycle. The falling edge does nothing but let Verilator see the next rising one. Blocks that would not change at the
// rising edge do not see it.
void Harness::clock() {
    bool resting = top->resting;
    for (unsigned level : {1u, 0u}) {
        top->clk = level;
        top->clk_busy = level && !resting;
        top->eval();
#if VM_TRACE
        if (trace_) trace_->dump(trace_time_ += HALF_PERIOD_PS);
#endif
    }
}

void Harness::cycle() {
    memory.sample();
    registers.sample();
    source.sample();
    sink.sample();
    bool irq = top->irq;
    if (irq != irq_) {
        context.count[IRQ_RISES] += irq;
        context.active();
        irq_ = irq;
    }
    memory.drive();
    registers.drive();
    source.drive();
    sink.drive();
    drive_tick();
    clock();
    context.count[FLOW_BUSY] += !top->resting;
    context.count[READS_OPEN] += memory.reads_open();
    context.count[WRITES_OPEN] += memory.writes_open();
    context.count[RX_LEVEL] += top->rx_level;
    if (log_frames && (!source.passed.empty() || sink.frames.size() != logged_sink_)) collect_log();
    context.count[CYCLES]++;
}

void Harness::drive_tick() {
    uint64_t now = context.cycle();
    bool tick = false;
    if (tick_period && now >= next_tick_) {
        next_tick_ = now + tick_period;
        tick = now != 0;
    } else if (ticks_requested && now >= last_tick_ + tick_spacing) {
        ticks_requested--;
        tick = true;
    }
    context.set(top->tick, tick);
    if (!tick) return;
    last_tick_ = now;
    context.count[TICKS]++;
}

uint32_t Harness::reasons(uint32_t stops) const {
    uint32_t found = 0;
    if ((stops & STOP_IRQ) && irq_ && registers.settled()) found |= STOP_IRQ;
    if ((stops & STOP_FRAME) && (!sink.frames.empty() || context.count[TX_FRAMES] != frames_before_)) found |= STOP_FRAME;
    if ((stops & STOP_SETTLED) && registers.settled()) found |= STOP_SETTLED;
    if ((stops & STOP_RX_DONE) && source.pending() == 0) found |= STOP_RX_DONE;
    if ((stops & STOP_IDLE) && idle()) found |= STOP_IDLE;
    if (context.report.failed()) found |= STOP_ERROR;
    return found;
}

uint32_t Harness::run(uint64_t cycles, uint32_t stops) {
    source.log = log_frames;
    uint32_t found = 0;
    frames_before_ = context.count[TX_FRAMES];
    uint64_t end = context.cycle() + cycles;
    while (context.cycle() < end && !found) {
        cycle();
        if (stops | context.report.failed()) found = reasons(stops);
        if (skip_idle && !found && idle()) skip(end);
    }
    return found ? found : uint32_t(STOP_CYCLES);
}

void Harness::collect_log() {
    uint64_t time_ns = clock_ns(CLOCK_REALTIME);
    while (!source.passed.empty()) {
        source.passed.front().time_ns = time_ns;
        log.push_back(std::move(source.passed.front()));
        source.passed.pop_front();
    }
    for (; logged_sink_ < sink.frames.size(); logged_sink_++) {
        log.push_back(sink.frames[logged_sink_]);
        log.back().time_ns = time_ns;
    }
    if (!keep_frames) {
        sink.frames.clear();
        logged_sink_ = 0;
    }
}

// Frames between TAP and engine, as many as either side takes.
void Harness::exchange(int tap) {
    uint8_t buffer[65536];
    while (source.pending() < TAP_QUEUE && next_taken_ <= context.cycle()) {
        ssize_t length = read(tap, buffer, sizeof buffer);
        if (length <= 0) break;
        Frame frame;
        frame.bytes.assign(buffer, buffer + length);
        source.push(std::move(frame));
        uint64_t now = context.cycle(), words = uint64_t(length) / MemoryPort<Vtop>::BYTES;
        next_taken_ = std::max(next_taken_, now > TAP_BURST ? now - TAP_BURST : 0);
        next_taken_ += std::max(words + TAP_EVENTS, TAP_SPACING);
        context.active();
    }
    while (!sink.frames.empty()) {
        const Frame& frame = sink.frames.front();
        if (write(tap, frame.bytes.data(), frame.bytes.size()) < 0) {
            if (errno == EAGAIN) break;
            tap_dropped++;
        }
        sink.frames.pop_front();
        forget_logged();
    }
}

// Nothing moves, and no tick is being worked off.
bool Harness::still(uint64_t rest_after, uint64_t sweep) const {
    return context.cycle() > context.last_activity + rest_after && context.cycle() > last_tick_ + sweep &&
           registers.pending() == 0 && memory.idle() && !irq_;
}

bool Harness::idle() const { return still(idle_after, idle_sweep) && source.next_due() > context.cycle() + 1; }

// The cycle counter goes on to what comes next: a tick, a frame, the end of the run.
void Harness::skip(uint64_t end) {
    uint64_t until = std::min(end, source.next_due() - 1);
    if (tick_period) until = std::min(until, next_tick_);
    if (until <= context.cycle()) return;
    context.count[SKIPPED] += until - context.cycle();
#if VM_TRACE
    trace_time_ += 2 * HALF_PERIOD_PS * (until - context.cycle());
#endif
    context.count[CYCLES] = until;
}

// Ticks given together after a rest. A timer is late by a rest at most, and a rest is at most an eighth of the time since
// anything moved: so is what the timer is late by, of the time for which it was set.
uint64_t Harness::rest_ticks(const LiveOptions& live, uint64_t now) const {
    return std::clamp<uint64_t>((now - moved_ns_) / live.tick_ns / 8, 1, MAX_REST_TICKS);
}

void Harness::request_ticks(const LiveOptions& live, uint64_t now) {
    uint64_t due = (now - live_start_) / live.tick_ns;
    if (context.last_activity != moved_at_) {
        moved_at_ = context.last_activity;
        moved_ns_ = now;
    }
    if (context.cycle() > context.last_activity + live.rest_after) {
        // Nothing moves: what the last ticks find due comes first, or there would be no end of it.
        bool sweeping = context.cycle() <= last_tick_ + live.sweep;
        if (sweeping || due - live_ticks_ < rest_ticks(live, now)) return;
    }
    ticks_requested += due - live_ticks_;
    live_ticks_ = due;
    if (ticks_requested > MAX_TICK_BACKLOG) {
        ticks_lost += ticks_requested - MAX_TICK_BACKLOG;
        ticks_requested = MAX_TICK_BACKLOG;
    }
}

// Nothing has moved on any port for a while: let the clock rest until ticks are due or the outside has something.
void Harness::rest(const LiveOptions& live, uint64_t now, uint64_t end) {
    uint64_t until = end;
    if (live.tick_ns) until = std::min(until, live_start_ + (live_ticks_ + rest_ticks(live, now)) * live.tick_ns);
    if (until <= now) return;
    pollfd entries[2] = {{live.tap, POLLIN, 0}, {live.wake, POLLIN, 0}};
    timespec timeout{time_t((until - now) / 1000000000ull), long((until - now) % 1000000000ull)};
    ppoll(entries, 2, &timeout, nullptr);
    rested_ns += clock_ns(CLOCK_MONOTONIC) - now;
}

uint32_t Harness::run_live(const LiveOptions& live) {
    uint64_t now = clock_ns(CLOCK_MONOTONIC), end = now + live.duration_ns;
    if (live_start_ == 0) live_start_ = now;
    tick_spacing = live.tick_spacing;
    source.log = log_frames;
    for (;;) {
        if (live.exchange && live.tap >= 0) exchange(live.tap);
        if (live.tick_ns) request_ticks(live, now);
        if (live.rest_after && ticks_requested == 0 && source.pending() == 0 &&
            still(live.rest_after, live.sweep)) {
            rest(live, now, end);
        } else {
            for (uint32_t i = 0; i < live.chunk; i++) cycle();
        }
        uint32_t found = reasons(STOP_IRQ | (live.exchange ? 0u : uint32_t(STOP_FRAME)));
        if (readable(live.wake)) found |= STOP_WAKE;
        if (!live.exchange && readable(live.tap)) found |= STOP_TAP;
        if (stop_requested.exchange(false)) found |= STOP_REQUESTED;
        now = clock_ns(CLOCK_MONOTONIC);
        if (now >= end) found |= STOP_TIME;
        if (found) {
            if (live.exchange && live.tap >= 0) exchange(live.tap);
            return found;
        }
    }
}

bool Harness::trace_open(const char* path) {
#if VM_TRACE
    trace_close();
    vl->traceEverOn(true);
    trace_ = std::make_unique<TraceFile>();
    top->trace(trace_.get(), 99);
    trace_->open(path);
    return trace_->isOpen();
#else
    (void)path;
    return false;
#endif
}

void Harness::trace_close() {
#if VM_TRACE
    if (trace_) trace_->close();
    trace_.reset();
#endif
}

// --- C interface: each function takes the handle that tiptoe_create returned; one thread at a time -------------------

struct FrameInfo {  // as native/harness.py unpacks it
    uint64_t first, last, time_ns;
    uint32_t length, flags;
};

extern "C" {

Harness* tiptoe_create(uint8_t* memory, uint64_t size, uint64_t seed) { return new Harness(memory, size, seed); }
void tiptoe_destroy(Harness* h) { delete h; }

uint32_t tiptoe_data_bytes(Harness*) { return MemoryPort<Vtop>::BYTES; }
uint32_t tiptoe_irq(Harness* h) { return h->top->irq && h->registers.settled(); }
const char* tiptoe_error(Harness* h) { return h->context.report.failed() ? h->context.report.text() : nullptr; }
void tiptoe_counts(Harness* h, uint64_t* counts) { memcpy(counts, h->context.count, sizeof h->context.count); }
uint64_t tiptoe_cycle(Harness* h) { return h->context.cycle(); }
uint64_t tiptoe_rested_ns(Harness* h) { return h->rested_ns; }
uint64_t tiptoe_ticks_lost(Harness* h) { return h->ticks_lost; }
uint64_t tiptoe_tap_dropped(Harness* h) { return h->tap_dropped; }

void tiptoe_memory_options(Harness* h, uint32_t latency, uint32_t jitter, uint32_t outstanding, uint32_t stall) {
    h->memory.options = {latency, jitter, outstanding, stall};
}
void tiptoe_add_error(Harness* h, uint64_t low, uint64_t high, uint32_t response, uint32_t reads, uint32_t writes,
                      int64_t count) {
    h->memory.errors.push_back({low, high, response, reads, writes, count});
}
void tiptoe_clear_errors(Harness* h) { h->memory.errors.clear(); }
uint32_t tiptoe_count_writes(Harness* h, uint64_t low, uint64_t high) {
    h->memory.write_counts.push_back({low, high, 0});
    return uint32_t(h->memory.write_counts.size() - 1);
}
uint64_t tiptoe_written(Harness* h, uint32_t range) { return h->memory.write_counts.at(range).bytes; }
void tiptoe_stalls(Harness* h, uint32_t rx, uint32_t tx, uint32_t registers) {
    h->source.stall = rx;
    h->sink.stall = tx;
    h->registers.stall = registers;
}
void tiptoe_line(Harness* h, double rx, double tx, uint32_t gap) {
    h->source.line.bytes_per_cycle = rx;
    h->sink.line.bytes_per_cycle = tx;
    h->source.line.gap = h->sink.line.gap = gap;
}
void tiptoe_idle(Harness* h, uint64_t after, uint64_t sweep, uint32_t skip) {
    h->idle_after = after;
    h->idle_sweep = sweep;
    h->skip_idle = skip;
}
void tiptoe_tick_every(Harness* h, uint64_t cycles) { h->tick_period = cycles; }
void tiptoe_tick(Harness* h, uint64_t count) { h->ticks_requested += count; }
void tiptoe_log_frames(Harness* h, uint32_t on, uint32_t keep) {
    h->log_frames = on;
    h->keep_frames = keep || !on;
}

void tiptoe_write32(Harness* h, uint32_t address, uint32_t value) { h->registers.write(address, value); }
// Runs the clock until the answer; 0 done, 1 error response, 2 no answer in that many cycles.
uint32_t tiptoe_read32(Harness* h, uint32_t address, uint64_t max_cycles, uint32_t* value) {
    h->registers.start_read(address);
    for (uint64_t i = 0; i < max_cycles && !h->registers.read_done(); i++) h->run(1, 0);
    *value = h->registers.read_value();
    if (!h->registers.read_done()) return 2;
    return h->registers.read_failed();
}
uint32_t tiptoe_registers_pending(Harness* h) { return uint32_t(h->registers.pending()); }

void tiptoe_inject(Harness* h, const uint8_t* bytes, uint32_t length, uint32_t flags, uint64_t not_before) {
    Frame frame;
    frame.bytes.assign(bytes, bytes + length);
    frame.flags = flags;
    frame.not_before = not_before;
    h->source.push(std::move(frame));
}
uint32_t tiptoe_rx_pending(Harness* h) { return uint32_t(h->source.pending()); }
uint64_t tiptoe_next_due(Harness* h) { return h->source.next_due(); }

// Moves whole frames out: which 0: frames of the engine, 1: the log of both directions. Returns how many.
uint32_t tiptoe_take(Harness* h, uint32_t which, uint8_t* bytes, uint64_t room, FrameInfo* info, uint32_t max) {
    std::deque<Frame>& queue = which ? h->log : h->sink.frames;
    uint32_t count = 0;
    uint64_t used = 0;
    while (count < max && !queue.empty() && used + queue.front().bytes.size() <= room) {
        const Frame& frame = queue.front();
        memcpy(bytes + used, frame.bytes.data(), frame.bytes.size());
        info[count++] = {frame.first, frame.last, frame.time_ns, uint32_t(frame.bytes.size()), frame.flags};
        used += frame.bytes.size();
        queue.pop_front();
        if (!which) h->forget_logged();
    }
    return count;
}

uint32_t tiptoe_run(Harness* h, uint64_t cycles, uint32_t stops) { return h->run(cycles, stops); }
uint32_t tiptoe_run_live(Harness* h, const LiveOptions* live) { return h->run_live(*live); }
void tiptoe_stop(Harness* h) { h->stop_requested = true; }

uint32_t tiptoe_trace(Harness* h, const char* path) {
    if (path) return h->trace_open(path);
    h->trace_close();
    return 1;
}
const char* tiptoe_trace_suffix() {
#if VM_TRACE_FST
    return "fst";
#elif VM_TRACE
    return "vcd";
#else
    return "";
#endif
}

}  // extern "C"
