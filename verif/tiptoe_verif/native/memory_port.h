// Host memory behind the engine's AXI4 master: in order, several bursts outstanding, latency and stalls to choose.
//
// Written data reaches host memory in the cycle its response is given, not earlier, and is read as late as possible:
// an engine that does not wait for responses shows stale data here.
#pragma once

#include <deque>
#include <vector>

#include "common.h"

struct MemoryOptions {
    uint32_t latency = 1;       // cycles from the address (last data word for writes) to the first word of the answer
    uint32_t jitter = 0;        // up to so many cycles more, at random
    uint32_t outstanding = 16;  // bursts accepted in each direction before the address channel stalls
    uint32_t stall = 0;         // per cycle and channel, probability * 2**32
};

struct ErrorRange {
    uint64_t low, high;  // [low, high)
    uint32_t response;   // 2 SLVERR, 3 DECERR
    uint32_t reads, writes;
    int64_t remaining;   // bursts still to fail; negative: for ever
};

// Counts the bytes that the engine writes to [low, high): strobed lanes, once for each time they reach memory.
struct WriteCount {
    uint64_t low, high, bytes;
};

template <class Top> class MemoryPort {
  public:
    static constexpr unsigned BYTES = sizeof(Top::m_axi_wdata);
    MemoryOptions options;
    std::vector<ErrorRange> errors;
    std::vector<WriteCount> write_counts;

    MemoryPort(Top& top, Context& context, uint8_t* memory, uint64_t size, uint64_t seed)
        : top_(top), context_(context), memory_(memory), size_(size), random_(seed ^ 0xA41) {}

    void reset() {
        context_.set(top_.m_axi_arready, 0);
        context_.set(top_.m_axi_awready, 0);
        context_.set(top_.m_axi_wready, 0);
        context_.set(top_.m_axi_rvalid, 0);
        context_.set(top_.m_axi_bvalid, 0);
        context_.set(top_.m_axi_rid, 0);
        context_.set(top_.m_axi_bid, 0);
        context_.set(top_.m_axi_rresp, 0);
        context_.set(top_.m_axi_bresp, 0);
        context_.set(top_.m_axi_rlast, 0);
    }

    size_t reads_open() const { return reads_.size(); }
    size_t writes_open() const { return addresses_.size() + responses_.size(); }
    bool idle() const { return reads_.empty() && addresses_.empty() && words_.empty() && responses_.empty() && !b_valid_; }

    // Before the rising edge: see what is handed over in this cycle.
    void sample() {
        ar_taken_ = check(ar_, top_.m_axi_arvalid, top_.m_axi_arready, "AR",
                          {top_.m_axi_araddr, top_.m_axi_arlen, top_.m_axi_arsize, top_.m_axi_arburst});
        aw_taken_ = check(aw_, top_.m_axi_awvalid, top_.m_axi_awready, "AW",
                          {top_.m_axi_awaddr, top_.m_axi_awlen, top_.m_axi_awsize, top_.m_axi_awburst});
        sample_write_word();
        r_taken_ = top_.m_axi_rvalid && top_.m_axi_rready;
        b_taken_ = top_.m_axi_bvalid && top_.m_axi_bready;
    }

    // After it: take in, answer, and set the inputs of the next cycle.
    void drive() {
        if (ar_taken_) accept_read();
        if (aw_taken_) accept_write();
        if (w_taken_) accept_word();
        drive_read();
        drive_write();
        context_.set(top_.m_axi_arready, reads_.size() < options.outstanding && !random_.chance(options.stall));
        bool room = addresses_.size() + responses_.size() < options.outstanding;
        context_.set(top_.m_axi_awready, room && !random_.chance(options.stall));
        context_.set(top_.m_axi_wready, words_.size() < 1024 && !random_.chance(options.stall));
    }

  private:
    struct Address {
        uint64_t addr;
        uint32_t len, size, burst;
        bool operator!=(const Address& other) const {
            return addr != other.addr || len != other.len || size != other.size || burst != other.burst;
        }
    };
    struct Held {
        bool valid = false;
        Address address{};
    };
    struct Burst {
        uint64_t addr;
        uint32_t beats, size;
        uint64_t due;
        uint32_t response;
        uint32_t beat = 0;
    };
    struct Word {
        uint8_t data[MAX_BUS_BYTES];
        uint32_t strobe;
        bool last;
    };

    bool check(Held& held, bool valid, bool ready, const char* channel, const Address& now) {
        if (held.valid && (!valid || held.address != now))
            context_.report.fail(context_.cycle(), "%s%s", channel,
                                 valid ? " changed while it waited for ready" : "valid fell before ready");
        held.valid = valid && !ready;
        if (held.valid) held.address = now;
        if (!(valid && ready)) return false;
        taken_ = now;
        uint64_t cycle = context_.cycle();
        uint64_t first = now.addr & ~((uint64_t(1) << now.size) - 1);
        uint64_t end = first + (uint64_t(now.len + 1) << now.size);
        if (now.burst != 1) context_.report.fail(cycle, "%s burst type %u is not INCR", channel, now.burst);
        if ((1u << now.size) > BYTES) context_.report.fail(cycle, "%s size %u is wider than the bus", channel, now.size);
        if ((now.addr >> 12) != ((end - 1) >> 12))
            context_.report.fail(cycle, "%s burst of %u words at 0x%llx crosses a 4 KiB page", channel, now.len + 1,
                                 (unsigned long long)now.addr);
        (channel[1] == 'R' ? ar_address_ : aw_address_) = now;
        context_.active();
        return true;
    }

    void sample_write_word() {
        bool valid = top_.m_axi_wvalid;
        Word now{};
        w_taken_ = false;
        if (!valid && !w_held_) return;
        get_bytes(top_.m_axi_wdata, now.data);
        now.strobe = top_.m_axi_wstrb;
        now.last = top_.m_axi_wlast;
        if (w_held_ && (!valid || memcmp(now.data, w_.data, BYTES) || now.strobe != w_.strobe || now.last != w_.last))
            context_.report.fail(context_.cycle(), "W%s",
                                 valid ? " changed while it waited for ready" : "valid fell before ready");
        w_taken_ = valid && top_.m_axi_wready;
        w_held_ = valid && !w_taken_;
        w_ = now;
        if (w_taken_) context_.active();
    }

    uint64_t due() { return context_.cycle() + options.latency + random_.below(uint64_t(options.jitter) + 1); }

    uint32_t response(const Address& a, bool write) {
        uint64_t end = a.addr + (uint64_t(a.len + 1) << a.size);
        for (ErrorRange& range : errors) {
            if (range.remaining == 0 || !(write ? range.writes : range.reads)) continue;
            if (a.addr < range.high && end > range.low) {
                if (range.remaining > 0) range.remaining--;
                context_.count[MEMORY_ERRORS]++;
                return range.response;
            }
        }
        if (a.addr >= size_ || (a.addr & ~(uint64_t(BYTES) - 1)) + (uint64_t(a.len + 1) << a.size) > size_) {
            context_.count[MEMORY_STRAYS]++;
            return 3;
        }
        return 0;
    }

    void accept_read() {
        const Address& a = ar_address_;
        context_.count[READ_BURSTS]++;
        reads_.push_back({a.addr, a.len + 1, a.size, due(), response(a, false)});
    }

    void accept_write() {
        const Address& a = aw_address_;
        context_.count[WRITE_BURSTS]++;
        addresses_.push_back({a.addr, a.len + 1, a.size, 0, response(a, true)});
        collect();
    }

    void accept_word() {
        context_.count[WRITE_BEATS]++;
        words_.push_back(w_);
        collect();
    }

    // Bursts whose words have all come get their response later; the words stay until then.
    void collect() {
        while (!addresses_.empty() && words_.size() >= words_claimed_ + addresses_.front().beats) {
            Burst& burst = addresses_.front();
            for (uint32_t i = 0; i < burst.beats; i++)
                if (words_[words_claimed_ + i].last != (i + 1 == burst.beats))
                    context_.report.fail(context_.cycle(), "wlast is wrong in word %u of %u at 0x%llx", i + 1, burst.beats,
                                         (unsigned long long)burst.addr);
            words_claimed_ += burst.beats;
            burst.due = due();
            responses_.push_back(burst);
            addresses_.pop_front();
        }
    }

    static uint64_t beat_address(const Burst& burst, uint32_t beat) {
        if (beat == 0) return burst.addr;
        return (burst.addr & ~((uint64_t(1) << burst.size) - 1)) + (uint64_t(beat) << burst.size);
    }

    void drive_read() {
        if (r_taken_) {
            context_.count[READ_BEATS]++;
            context_.active();
            Burst& burst = reads_.front();
            if (++burst.beat == burst.beats) reads_.pop_front();
        } else if (top_.m_axi_rvalid) {
            return;
        }
        bool present = !reads_.empty() && context_.cycle() + 1 >= reads_.front().due && !random_.chance(options.stall);
        context_.set(top_.m_axi_rvalid, present);
        if (!present) return;
        Burst& burst = reads_.front();
        uint8_t bytes[MAX_BUS_BYTES] = {};
        if (burst.response == 0)
            memcpy(bytes, memory_ + (beat_address(burst, burst.beat) & ~(uint64_t(BYTES) - 1)), BYTES);
        context_.set_bytes(top_.m_axi_rdata, bytes);
        context_.set(top_.m_axi_rresp, burst.response);
        context_.set(top_.m_axi_rlast, burst.beat + 1 == burst.beats);
    }

    void drive_write() {
        if (b_taken_) {
            b_valid_ = false;
            context_.active();
        }
        if (!b_valid_ && !responses_.empty() && context_.cycle() + 1 >= responses_.front().due &&
            !random_.chance(options.stall)) {
            commit(responses_.front());
            context_.set(top_.m_axi_bresp, responses_.front().response);
            responses_.pop_front();
            b_valid_ = true;
        }
        context_.set(top_.m_axi_bvalid, b_valid_);
    }

    void commit(const Burst& burst) {
        for (uint32_t i = 0; i < burst.beats; i++) {
            const Word& word = words_.front();
            uint64_t address = beat_address(burst, i);
            uint64_t base = address & ~(uint64_t(BYTES) - 1);
            uint64_t low = address - base;
            uint64_t high = (address & ~((uint64_t(1) << burst.size) - 1)) + (uint64_t(1) << burst.size) - base;
            uint32_t lanes = uint32_t((uint64_t(1) << high) - (uint64_t(1) << low));
            if (word.strobe & ~lanes)
                context_.report.fail(context_.cycle(), "wstrb 0x%x outside the lanes of the write at 0x%llx", word.strobe,
                                     (unsigned long long)address);
            if (burst.response == 0) {
                if (!write_counts.empty()) count_write(base, word.strobe);
                if (word.strobe == lanes_below(BYTES)) {
                    memcpy(memory_ + base, word.data, BYTES);
                } else {
                    for (unsigned lane = 0; lane < BYTES; lane++)
                        if (word.strobe >> lane & 1) memory_[base + lane] = word.data[lane];
                }
            }
            words_.pop_front();
            words_claimed_--;
        }
    }

    void count_write(uint64_t base, uint32_t strobe) {
        for (WriteCount& range : write_counts)
            for (unsigned lane = 0; lane < BYTES; lane++)
                range.bytes += (strobe >> lane & 1) && base + lane >= range.low && base + lane < range.high;
    }

    Top& top_;
    Context& context_;
    uint8_t* memory_;
    uint64_t size_;
    Random random_;
    std::deque<Burst> reads_, addresses_, responses_;
    std::deque<Word> words_;       // in order: of bursts that await their response, then of the next ones
    size_t words_claimed_ = 0;     // words of the former
    Held ar_, aw_;
    Address taken_{}, ar_address_{}, aw_address_{};
    Word w_{};
    bool w_held_ = false, b_valid_ = false;
    bool ar_taken_ = false, aw_taken_ = false, w_taken_ = false, r_taken_ = false, b_taken_ = false;
};
