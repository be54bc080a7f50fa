// The Verilated top with its two clocks and a gigabit line: a byte every 8 ns in each direction (IEEE 802.3 clause 35).
//
// And the serial line (8N1). Inputs change, and outputs are looked at, at the line clock's falling edge: whatever the clocks' phase, nothing races.
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

using Bytes = std::vector<uint8_t>;
struct Sent {
    Bytes bytes;
    uint64_t end_ps;
    uint32_t gap;  // bytes of silence before it
};

// One direction of the serial line, looked at every HALF_LINE_PS * 2: a start bit, eight bits, the lowest first, a stop bit.
struct SerialLine {
    uint64_t bit_ps = 0, next_ps = 0;
    unsigned bit = 0;  // 0: idle; 1 to 10: the start bit to the stop bit
    uint8_t byte = 0;
    std::deque<uint8_t> bytes;

    bool give(uint64_t now_ps) {
        if (bit && now_ps >= next_ps) {
            next_ps += bit_ps;
            bit = bit == 10 ? 0 : bit + 1;
        }
        if (!bit && !bytes.empty()) {
            byte = bytes.front();
            bytes.pop_front();
            bit = 1;
            next_ps = now_ps + bit_ps;
        }
        return bit == 0 || bit == 10 || (bit > 1 && (byte >> (bit - 2) & 1));
    }

    void take(uint64_t now_ps, bool level) {
        if (!bit) {
            if (level) return;
            bit = 1;
            next_ps = now_ps + bit_ps + bit_ps / 2;  // the middle of the first bit
        } else if (now_ps >= next_ps) {
            next_ps += bit_ps;
            if (++bit < 10) {
                byte = uint8_t(byte >> 1 | level << 7);
            } else {
                if (level) bytes.push_back(byte);
                bit = 0;
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
    SerialLine to_board, from_board;

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
    }

    void serial() {
        if (!to_board.bit_ps) return;
        from_board.take(now_ps, top->serial_tx);
        top->serial_rx = to_board.give(now_ps);
    }

    void line() {
        serial();
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
void board_serial(Sim* sim, uint64_t bit_ps) { sim->to_board.bit_ps = sim->from_board.bit_ps = bit_ps; }
void board_serial_give(Sim* sim, const uint8_t* bytes, uint32_t length) {
    sim->to_board.bytes.insert(sim->to_board.bytes.end(), bytes, bytes + length);
}
// What the board has said so far, `room` bytes at most; returns how many.
uint32_t board_serial_take(Sim* sim, uint8_t* bytes, uint32_t room) {
    uint32_t count = 0;
    for (auto& said = sim->from_board.bytes; count < room && !said.empty(); said.pop_front()) bytes[count++] = said.front();
    return count;
}
uint32_t board_arriving(Sim* sim) { return uint32_t(sim->arriving.size()); }
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
