// What the ports of the harness share: seeded chance, counters, the first rule broken, moving words.
#pragma once

#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>

// xorshift64*: small, fast, and the same on every machine.
class Random {
  public:
    explicit Random(uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15ull + 0xD1B54A32D192ED03ull) {
        if (state_ == 0) state_ = 1;
        for (int i = 0; i < 8; i++) next();
    }
    uint64_t next() {
        state_ ^= state_ >> 12;
        state_ ^= state_ << 25;
        state_ ^= state_ >> 27;
        return state_ * 0x2545F4914F6CDD1Dull;
    }
    // True with probability threshold / 2**32; draws nothing when the threshold is 0.
    bool chance(uint32_t threshold) { return threshold != 0 && (next() >> 32) < threshold; }
    uint64_t below(uint64_t bound) { return bound == 0 ? 0 : next() % bound; }

  private:
    uint64_t state_;
};

// Counters of one harness, in the order of native/harness.py's COUNTERS.
enum Count {
    CYCLES,          // clock cycles since reset, skipped ones too
    RX_FRAMES,       // frames given to the engine, complete
    RX_BYTES,
    RX_BEATS,
    RX_STALLS,       // cycles with tvalid but not tready
    TX_FRAMES,       // frames taken from the engine, complete
    TX_BYTES,
    TX_BEATS,
    TX_STALLS,       // cycles the engine waited for tready
    TX_GAPS,         // cycles without tvalid in the middle of a frame
    READ_BURSTS,
    READ_BEATS,
    WRITE_BURSTS,
    WRITE_BEATS,
    REGISTER_WRITES,
    REGISTER_READS,
    REGISTER_ERRORS, // error responses on the register port
    TICKS,
    IRQ_RISES,
    MEMORY_ERRORS,   // injected error responses
    MEMORY_STRAYS,   // bursts outside host memory (answered DECERR)
    SKIPPED,         // cycles of idle time that the engine's clock did not see
    FLOW_BUSY,       // cycles in which blocks that can rest did not (the TCB pipeline had work); all, in a build with waveforms
    READS_OPEN,      // read bursts under way, summed over cycles: divided by CYCLES it is their mean number
    WRITES_OPEN,
    RX_LEVEL,        // words in use in the receive buffer, likewise
    COUNTS
};

// The first rule of a bus protocol that the engine broke.
class Report {
  public:
    bool failed() const { return !text_.empty(); }
    const char* text() const { return text_.c_str(); }
    __attribute__((format(printf, 3, 4))) void fail(uint64_t cycle, const char* format, ...) {
        if (failed()) return;
        char buffer[400];
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(buffer, sizeof buffer, format, arguments);
        va_end(arguments);
        text_ = "cycle " + std::to_string(cycle) + ": " + buffer;
    }

  private:
    std::string text_;
};

struct Context {
    uint64_t count[COUNTS] = {};
    Report report;
    uint64_t last_activity = 0;  // cycle of the last handshake on any port
    uint64_t cycle() const { return count[CYCLES]; }
    void active() { last_activity = count[CYCLES]; }

    // Inputs of the next cycle; what is read back is this one's until the clock rises.
    template <class Port> void set(Port& port, uint64_t value) { port = Port(value); }
    template <class Port> void set_bytes(Port& port, const uint8_t* bytes) { memcpy(&port, bytes, sizeof port); }
};

// Verilator holds ports of up to 64 bits in integers, wider ones in arrays of 32-bit words: both little endian.
template <class Port> inline void get_bytes(const Port& port, uint8_t* bytes) { memcpy(bytes, &port, sizeof port); }

constexpr unsigned MAX_BUS_BYTES = 32;

// A bit for each of the first ``count`` lanes, up to all of the widest bus.
constexpr uint32_t lanes_below(unsigned count) { return uint32_t((uint64_t(1) << count) - 1); }
