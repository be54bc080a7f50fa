// The wire's side of the AXI4-Stream frame ports, with stamps: every frame knows the cycles of its first and last word.
#pragma once

#include <algorithm>
#include <deque>
#include <vector>

#include "common.h"

// A frame and when it passed the engine's port.
struct Frame {
    std::vector<uint8_t> bytes;
    uint32_t flags = 0;       // FRAME_*
    uint64_t not_before = 0;  // towards the engine: earliest cycle of its first word
    uint64_t first = 0, last = 0;
    uint64_t time_ns = 0;     // wall clock when it passed, if logged
};

constexpr uint32_t FRAME_TO_ENGINE = 1, FRAME_ERROR = 2;

// The line's speed: a frame occupies it for (its length, at least 60, + gap) / rate cycles. Rate 0: no limit.
struct LineRate {
    double bytes_per_cycle = 0;
    uint32_t gap = 24;  // preamble 8, FCS 4, inter-frame gap 12
    double free = 0;    // cycle from which the line is free

    bool is_free(uint64_t cycle) const { return bytes_per_cycle <= 0 || double(cycle) >= free; }
    void occupy(uint64_t start, size_t length) {
        if (bytes_per_cycle <= 0) return;
        // Fractions of a cycle carry over only while frames follow each other without a pause.
        double begin = double(start) >= free + 1 ? double(start) : free;
        free = begin + double(std::max<size_t>(length, 60) + gap) / bytes_per_cycle;
    }
};

template <class Top> class FrameSource {
  public:
    static constexpr unsigned BYTES = sizeof(Top::s_axis_rx_tdata);
    LineRate line;
    uint32_t stall = 0;  // per cycle: probability * 2**32 that tvalid is low in the middle of a frame
    bool log = false;    // keep frames that have passed in ``passed``
    std::deque<Frame> passed;

    FrameSource(Top& top, Context& context, uint64_t seed) : top_(top), context_(context), random_(seed ^ 0x5EED) {}

    void reset() {
        context_.set(top_.s_axis_rx_tvalid, 0);
        context_.set(top_.s_axis_rx_tkeep, 0);
        context_.set(top_.s_axis_rx_tlast, 0);
        context_.set(top_.s_axis_rx_tuser, 0);
    }

    void push(Frame frame) {
        // In order of their time; frames of the same time in order of arrival.
        auto place = queue_.end();
        auto fixed = queue_.begin() + (busy_ ? 1 : 0);
        while (place != fixed && (place - 1)->not_before > frame.not_before) --place;
        queue_.insert(place, std::move(frame));
    }
    size_t pending() const { return queue_.size(); }
    // Earliest cycle of the next frame's first word; all ones if there is none.
    uint64_t next_due() const { return queue_.empty() ? ~uint64_t(0) : queue_.front().not_before; }

    void sample() {
        if (!top_.s_axis_rx_tvalid) return;
        if (top_.s_axis_rx_tready) {
            taken_ = true;
            if (offset_ == 0) queue_.front().first = context_.cycle();
        } else {
            context_.count[RX_STALLS]++;
        }
    }

    void drive() {
        if (taken_) advance();
        else if (top_.s_axis_rx_tvalid) return;
        uint64_t next = context_.cycle() + 1;
        if (!busy_ && !queue_.empty() && queue_.front().not_before <= next && line.is_free(next)) {
            busy_ = true;
            offset_ = 0;
            line.occupy(next, queue_.front().bytes.size());
        }
        bool present = busy_ && !random_.chance(stall);
        context_.set(top_.s_axis_rx_tvalid, present);
        if (present) present_word();
        else if (stall) scramble();
    }

  private:
    void advance() {
        taken_ = false;
        context_.active();
        context_.count[RX_BEATS]++;
        offset_ += BYTES;
        Frame& frame = queue_.front();
        if (offset_ < frame.bytes.size()) return;
        context_.count[RX_FRAMES]++;
        context_.count[RX_BYTES] += frame.bytes.size();
        frame.last = context_.cycle();
        frame.flags |= FRAME_TO_ENGINE;
        if (log) passed.push_back(std::move(frame));
        queue_.pop_front();
        busy_ = false;
    }

    void present_word() {
        const Frame& frame = queue_.front();
        size_t left = frame.bytes.size() - offset_;
        unsigned count = unsigned(std::min<size_t>(left, BYTES));
        uint8_t bytes[MAX_BUS_BYTES] = {};
        memcpy(bytes, frame.bytes.data() + offset_, count);
        context_.set_bytes(top_.s_axis_rx_tdata, bytes);
        context_.set(top_.s_axis_rx_tkeep, lanes_below(count));
        context_.set(top_.s_axis_rx_tlast, left <= BYTES);
        context_.set(top_.s_axis_rx_tuser, left <= BYTES && (frame.flags & FRAME_ERROR));
    }

    // While tvalid is low the other wires mean nothing: an engine that looks at them is found out.
    void scramble() {
        uint64_t noise[MAX_BUS_BYTES / 8];
        for (unsigned at = 0; at < std::max(2u, BYTES / 8); at++) noise[at] = random_.next();
        context_.set_bytes(top_.s_axis_rx_tdata, reinterpret_cast<uint8_t*>(noise));
        context_.set(top_.s_axis_rx_tkeep, lanes_below(BYTES));
        context_.set(top_.s_axis_rx_tlast, noise[0] & 1);
        context_.set(top_.s_axis_rx_tuser, noise[0] >> 1 & 1);
    }

    Top& top_;
    Context& context_;
    Random random_;
    std::deque<Frame> queue_;
    size_t offset_ = 0;
    bool busy_ = false, taken_ = false;
};

template <class Top> class FrameSink {
  public:
    static constexpr unsigned BYTES = sizeof(Top::m_axis_tx_tdata);
    LineRate line;
    uint32_t stall = 0;  // per cycle: probability * 2**32 that tready is low
    std::deque<Frame> frames;

    FrameSink(Top& top, Context& context, uint64_t seed) : top_(top), context_(context), random_(seed ^ 0x51C) {}

    void reset() { context_.set(top_.m_axis_tx_tready, 0); }

    void sample() {
        bool valid = top_.m_axis_tx_tvalid;
        taken_ = false;
        if (!valid && !held_) {
            if (!frame_.bytes.empty()) context_.count[TX_GAPS]++;
            return;
        }
        uint8_t bytes[MAX_BUS_BYTES];
        get_bytes(top_.m_axis_tx_tdata, bytes);
        uint32_t keep = top_.m_axis_tx_tkeep;
        bool last = top_.m_axis_tx_tlast;
        if (held_ && (!valid || keep != keep_ || last != last_ || memcmp(bytes, bytes_, BYTES)))
            context_.report.fail(context_.cycle(), "tx stream: %s",
                                 valid ? "a word changed while it waited for tready" : "tvalid fell before tready");
        taken_ = valid && top_.m_axis_tx_tready;
        held_ = valid && !taken_;
        if (held_) context_.count[TX_STALLS]++;
        memcpy(bytes_, bytes, BYTES);
        keep_ = keep;
        last_ = last;
    }

    void drive() {
        if (taken_) accept();
        uint64_t next = context_.cycle() + 1;
        context_.set(top_.m_axis_tx_tready, (!frame_.bytes.empty() || line.is_free(next)) && !random_.chance(stall));
    }

  private:
    void accept() {
        context_.active();
        context_.count[TX_BEATS]++;
        if (frame_.bytes.empty()) frame_.first = context_.cycle();
        unsigned count = unsigned(__builtin_popcount(keep_));
        if (keep_ != lanes_below(count) || count == 0 || (!last_ && count != BYTES))
            context_.report.fail(context_.cycle(), "tx stream: tkeep 0x%x in a %s word", keep_, last_ ? "last" : "middle");
        frame_.bytes.insert(frame_.bytes.end(), bytes_, bytes_ + count);
        if (frame_.bytes.size() > 65536) context_.report.fail(context_.cycle(), "tx stream: a frame without end");
        if (!last_) return;
        frame_.last = context_.cycle();
        line.occupy(frame_.first, frame_.bytes.size());
        context_.count[TX_FRAMES]++;
        context_.count[TX_BYTES] += frame_.bytes.size();
        frames.push_back(std::move(frame_));
        frame_ = Frame{};
    }

    Top& top_;
    Context& context_;
    Random random_;
    Frame frame_;
    uint8_t bytes_[MAX_BUS_BYTES] = {};
    uint32_t keep_ = 0;
    bool last_ = false, held_ = false, taken_ = false;
};
