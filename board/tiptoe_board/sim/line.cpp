// The Verilated top with its two clocks and a gigabit line: a byte every 8 ns in each direction (IEEE 802.3 clause 35).
//
// Inputs change, and outputs are looked at, at the line clock's falling edge: whatever the clocks' phase, nothing races.
#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "Vtop.h"
#include "verilated.h"

namespace {

constexpr uint64_t HALF_LINE_PS = 4000;
constexpr unsigned GAP = 12;
constexpr uint64_t SERIAL_BIT_PS = 200000;  // 5 Mbaud, as elaborate.py says

using Bytes = std::vector<uint8_t>;
struct Sent {
    Bytes bytes;
    uint64_t end_ps;
    uint32_t gap;  // bytes of silence before it
};

// What comes on a serial line: a start bit, eight bits from the lowest, a stop bit; each looked at in its middle.
struct Serial {
    uint64_t next_ps = 0;
    unsigned bits = 0, value = 0;
    std::string text;

    void look(bool level, uint64_t now_ps) {
        if (!bits) {
            if (level) return;
            bits = 9;
            next_ps = now_ps + SERIAL_BIT_PS * 3 / 2;
        } else if (now_ps >= next_ps) {
            next_ps += SERIAL_BIT_PS;
            if (--bits) {
                value = value >> 1 | (level ? 0x80 : 0);
            } else if (level) {
                text.push_back(char(value));
            }
        }
    }
};

struct Sim {
    VerilatedContext context;
    std::unique_ptr<Vtop> top;
    uint64_t now_ps = 0, half_sys_ps, next_sys_ps, next_line_ps = HALF_LINE_PS;
    std::deque<std::pair<uint64_t, Bytes>> arriving;  // not before, bytes
    size_t position = 0;
    unsigned silence = 0;
    Bytes sending;
    uint32_t quiet = 1u << 20;
    std::deque<Sent> sent;
    Serial serial;

    // `rom`: the processor's program, if there is one.
    Sim(uint64_t half_sys, const std::string& rom) : half_sys_ps(half_sys), next_sys_ps(half_sys) {
        const std::string argument = "+rom=" + rom;
        const char* arguments[] = {"top", argument.c_str()};
        context.commandArgs(rom.empty() ? 1 : 2, arguments);
        top = std::make_unique<Vtop>(&context);
        top->serial_rx = 1;
        top->clocks_rst = 1;
        top->eval();
        run(1000000, false);
        top->clocks_rst = 0;
        serial = {};  // until now the line was not driven
    }

    void line() {
        serial.look(top->serial_tx, now_ps);
        if (top->line_tx_valid) {
            sending.push_back(top->line_tx_data);
        } else if (!sending.empty()) {
            sent.push_back({std::move(sending), now_ps, quiet});
            sending.clear();
            quiet = 1;
        } else {
            quiet += quiet < (1u << 20);
        }
        top->line_rx_valid = top->line_rx_last = 0;
        if (silence) {
            silence--;
        } else if (!arriving.empty() && arriving.front().first <= now_ps) {
            const Bytes& bytes = arriving.front().second;
            top->line_rx_valid = 1;
            top->line_rx_data = bytes[position++];
            if (position == bytes.size()) {
                top->line_rx_last = 1;
                position = 0;
                silence = GAP;
                arriving.pop_front();
            }
        }
    }

    // Time up to `until`, or to the end of a frame that the top sends.
    void run(uint64_t until_ps, bool stop_at_frame) {
        while (!(stop_at_frame && !sent.empty())) {
            uint64_t next = next_sys_ps < next_line_ps ? next_sys_ps : next_line_ps;
            if (next > until_ps) {
                now_ps = until_ps;
                return;
            }
            now_ps = next;
            if (next == next_sys_ps) {
                top->clocks_sys = !top->clocks_sys;
                next_sys_ps += half_sys_ps;
            }
            if (next == next_line_ps) {
                top->clocks_eth = !top->clocks_eth;
                next_line_ps += HALF_LINE_PS;
            }
            top->eval();
            if (next + HALF_LINE_PS == next_line_ps && !top->clocks_eth) line();
        }
    }
};

}  // namespace

extern "C" {
Sim* board_create(uint64_t half_sys_ps, const char* rom) { return new Sim(half_sys_ps, rom); }
void board_destroy(Sim* sim) {
    sim->top->final();
    delete sim;
}
uint64_t board_now(Sim* sim) { return sim->now_ps; }
void board_run(Sim* sim, uint64_t until_ps, uint32_t stop_at_frame) { sim->run(until_ps, stop_at_frame != 0); }
void board_give(Sim* sim, uint64_t not_before_ps, const uint8_t* bytes, uint32_t length) {
    sim->arriving.emplace_back(not_before_ps, Bytes(bytes, bytes + length));
}
uint32_t board_arriving(Sim* sim) { return uint32_t(sim->arriving.size()); }
// What the console said since last time, of at most `room` bytes; returns its length.
uint32_t board_console(Sim* sim, char* text, uint32_t room) {
    const size_t length = sim->serial.text.copy(text, room);
    sim->serial.text.erase(0, length);
    return uint32_t(length);
}
// Inputs hold between two evaluations: it is seen at the next edge of a clock.
void board_pause(Sim* sim, uint32_t paused) { sim->top->pause = paused != 0; }
// The oldest frame sent, if there is one: its length (0: none), end and the silence before it.
uint32_t board_take(Sim* sim, uint8_t* bytes, uint32_t room, uint64_t* end_ps, uint32_t* gap) {
    if (sim->sent.empty()) return 0;
    const Sent frame = std::move(sim->sent.front());
    sim->sent.pop_front();
    *end_ps = frame.end_ps;
    *gap = frame.gap;
    std::memcpy(bytes, frame.bytes.data(), frame.bytes.size() < room ? frame.bytes.size() : room);
    return uint32_t(frame.bytes.size());
}
}
