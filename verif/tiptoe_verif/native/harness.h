// The Verilated engine with a host and a wire around it: memory, register port, frame ports, ticks.
//
// One clock cycle is: the ports look at what is handed over in it, they set the inputs of the next one, the clock rises.
// The model is evaluated once a cycle, but for blocks that would stay as they are. No cycle is skipped unless asked for
// (skip_idle): then the cycle counter goes on where nothing moves, up to the next tick or frame, and the engine's clock rests.
#pragma once

#include <atomic>
#include <memory>

#include "Vtop.h"
#include "verilated.h"
#if VM_TRACE_FST
#include "verilated_fst_c.h"
using TraceFile = VerilatedFstC;
#elif VM_TRACE
#include "verilated_vcd_c.h"
using TraceFile = VerilatedVcdC;
#endif

#include "frame_ports.h"
#include "memory_port.h"
#include "register_port.h"

// Why a run returned; the first seven can be asked for.
enum Stop : uint32_t {
    STOP_IRQ = 1,         // interrupt high, and no register write on the way that could lower it
    STOP_FRAME = 2,       // a frame of the engine is complete
    STOP_SETTLED = 4,     // all posted register writes have been answered
    STOP_RX_DONE = 8,     // all injected frames have entered the engine
    STOP_WAKE = 16,       // live: the wake descriptor is readable
    STOP_TAP = 32,        // live: frames wait at the TAP, and they are not ours to read
    STOP_IDLE = 64,       // nothing moves, and nothing is on its way in
    STOP_CYCLES = 256,    // as many cycles as asked for
    STOP_TIME = 512,      // live: as long as asked for
    STOP_REQUESTED = 1024,
    STOP_ERROR = 2048,    // a bus rule was broken: see the report
};

// What a live run does, set by the host before it.
struct LiveOptions {
    int32_t tap = -1;            // TAP descriptor, not blocking
    int32_t wake = -1;           // readable: the host has work (an epoll descriptor of its sockets)
    uint32_t exchange = 1;       // 1: frames pass between TAP and engine here; 0: the host carries them
    uint32_t chunk = 128;        // cycles between two looks at the outside
    uint32_t rest_after = 4096;  // cycles without any bus traffic after which the clock rests until something happens
    uint32_t tick_spacing = 4;   // cycles between two ticks at least
    uint32_t sweep = 512;        // cycles in which the timers that a tick finds due have shown on a bus
    uint64_t tick_ns = 1000000;  // wall time a tick; 0: none
    uint64_t duration_ns = 0;    // return after so long
};

class Harness {
  public:
    Harness(uint8_t* memory, uint64_t size, uint64_t seed)
        : vl(std::make_unique<VerilatedContext>()), top(std::make_unique<Vtop>(vl.get(), "engine")),
          memory(*top, context, memory, size, seed), registers(*top, context, seed), source(*top, context, seed),
          sink(*top, context, seed) {
        reset(8);
    }
    ~Harness() {
        trace_close();
        top->final();
    }

    void reset(unsigned cycles);
    uint32_t run(uint64_t cycles, uint32_t stops);
    uint32_t run_live(const LiveOptions& live);
    bool trace_open(const char* path);
    void trace_close();
    // A frame was taken out at the front of sink.frames.
    void forget_logged() {
        if (logged_sink_) logged_sink_--;
    }

    std::unique_ptr<VerilatedContext> vl;
    std::unique_ptr<Vtop> top;
    Context context;
    MemoryPort<Vtop> memory;
    RegisterPort<Vtop> registers;
    FrameSource<Vtop> source;
    FrameSink<Vtop> sink;
    std::deque<Frame> log;           // frames of both directions, if wanted, in order of their last word
    bool log_frames = false;
    bool keep_frames = true;         // frames of the engine stay in sink.frames too when they are logged
    uint64_t tick_period = 0;        // cycles between ticks, 0: none
    uint64_t idle_after = 4096;      // cycles without bus traffic after which the engine counts as idle
    uint64_t idle_sweep = 512;       // likewise: cycles after a tick
    bool skip_idle = false;          // what is idle time is skipped
    uint64_t tick_spacing = 1;       // cycles between requested ticks at least
    uint64_t ticks_requested = 0;
    uint64_t ticks_lost = 0;         // not given to the engine: it stood still for so long that they would come all at once
    uint64_t tap_dropped = 0;        // frames the TAP refused
    uint64_t rested_ns = 0;          // wall time the clock rested in live runs
    std::atomic<bool> stop_requested{false};

  private:
    void clock();
    void cycle();
    void drive_tick();
    uint32_t reasons(uint32_t stops) const;
    void collect_log();
    void exchange(int tap);
    void rest(const LiveOptions& live, uint64_t now, uint64_t end);
    void request_ticks(const LiveOptions& live, uint64_t now);
    uint64_t rest_ticks(const LiveOptions& live, uint64_t now) const;
    bool still(uint64_t rest_after, uint64_t sweep) const;
    bool idle() const;
    void skip(uint64_t end);

    bool irq_ = false;
    uint64_t frames_before_ = 0;  // TX_FRAMES when the run began
    uint64_t next_tick_ = 0, last_tick_ = 0;
    uint64_t live_start_ = 0, live_ticks_ = 0;
    uint64_t moved_at_ = 0, moved_ns_ = 0;  // cycle of the last traffic seen, and the time when it was seen
    uint64_t next_taken_ = 0;  // cycle from which a frame of the TAP may come in
    size_t logged_sink_ = 0;  // frames of sink.frames that are in the log already
#if VM_TRACE
    std::unique_ptr<TraceFile> trace_;
    uint64_t trace_time_ = 0;
#endif
};
