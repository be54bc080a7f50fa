// The host's side of the AXI4-Lite register port: posted writes from a queue, one read at a time after them.
#pragma once

#include <deque>

#include "common.h"

template <class Top> class RegisterPort {
  public:
    uint32_t stall = 0;  // per cycle: probability * 2**32 of a pause before the next write, and of bready and rready low

    RegisterPort(Top& top, Context& context, uint64_t seed) : top_(top), context_(context), random_(seed ^ 0x11E) {}

    void reset() {
        context_.set(top_.s_axil_awvalid, 0);
        context_.set(top_.s_axil_wvalid, 0);
        context_.set(top_.s_axil_arvalid, 0);
        context_.set(top_.s_axil_awprot, 0);
        context_.set(top_.s_axil_arprot, 0);
        context_.set(top_.s_axil_wstrb, 0xF);
        context_.set(top_.s_axil_bready, 1);
        context_.set(top_.s_axil_rready, 1);
    }

    void write(uint32_t address, uint32_t value) { queue_.push_back({address, value}); }
    void start_read(uint32_t address) {
        read_address_ = address;
        reading_ = true;
        read_done_ = false;
    }
    bool read_done() const { return read_done_; }
    bool read_failed() const { return read_response_ != 0; }
    uint32_t read_value() const { return read_value_; }
    size_t pending() const { return queue_.size() + outstanding_ + (aw_ || w_); }
    // Nothing on the way, and for a few cycles already: effects of the last write are visible.
    bool settled() const { return pending() == 0 && !reading_ && context_.cycle() >= last_response_ + 4; }

    void sample() {
        if (!aw_ && !w_ && !outstanding_ && !reading_) {
            check_unasked();
            return;
        }
        if (aw_ && top_.s_axil_awready) aw_taken_ = true;
        if (w_ && top_.s_axil_wready) w_taken_ = true;
        b_taken_ = top_.s_axil_bvalid && top_.s_axil_bready;
        ar_taken_ = top_.s_axil_arvalid && top_.s_axil_arready;
        r_taken_ = top_.s_axil_rvalid && top_.s_axil_rready;
        if (b_taken_) b_response_ = top_.s_axil_bresp;
        if (r_taken_) {
            read_value_ = top_.s_axil_rdata;
            read_response_ = top_.s_axil_rresp;
        }
    }

    void drive() {
        bool changed = aw_taken_ || w_taken_ || b_taken_ || ar_taken_ || r_taken_;
        if (changed) context_.active();
        if (aw_taken_) {
            aw_ = aw_taken_ = false;
            context_.set(top_.s_axil_awvalid, 0);
        }
        if (w_taken_) {
            w_ = w_taken_ = false;
            context_.set(top_.s_axil_wvalid, 0);
        }
        if (b_taken_) finish_write();
        if (!aw_ && !w_ && !queue_.empty() && outstanding_ < 8 && !random_.chance(stall)) begin_write();
        if (ar_taken_) {
            ar_taken_ = false;
            context_.set(top_.s_axil_arvalid, 0);
        }
        if (r_taken_) finish_read();
        if (reading_ && !read_asked_ && pending() == 0) {
            context_.set(top_.s_axil_araddr, read_address_);
            context_.set(top_.s_axil_arvalid, 1);
            read_asked_ = true;
        }
        if (stall) {
            context_.set(top_.s_axil_bready, !random_.chance(stall));
            context_.set(top_.s_axil_rready, !random_.chance(stall));
        }
    }

  private:
    struct Write {
        uint32_t address, value;
    };

    void check_unasked() {
        if (top_.s_axil_bvalid) context_.report.fail(context_.cycle(), "bvalid on the register port without a write");
        if (top_.s_axil_rvalid) context_.report.fail(context_.cycle(), "rvalid on the register port without a read");
    }

    void begin_write() {
        context_.set(top_.s_axil_awaddr, queue_.front().address);
        context_.set(top_.s_axil_wdata, queue_.front().value);
        queue_.pop_front();
        context_.set(top_.s_axil_awvalid, 1);
        context_.set(top_.s_axil_wvalid, 1);
        aw_ = w_ = true;
        outstanding_++;
        context_.count[REGISTER_WRITES]++;
    }

    void finish_write() {
        b_taken_ = false;
        outstanding_--;
        last_response_ = context_.cycle();
        if (b_response_) context_.count[REGISTER_ERRORS]++;
    }

    void finish_read() {
        r_taken_ = read_asked_ = reading_ = false;
        read_done_ = true;
        last_response_ = context_.cycle();
        context_.count[REGISTER_READS]++;
        if (read_response_) context_.count[REGISTER_ERRORS]++;
    }

    Top& top_;
    Context& context_;
    Random random_;
    std::deque<Write> queue_;
    unsigned outstanding_ = 0;
    bool aw_ = false, w_ = false, aw_taken_ = false, w_taken_ = false, b_taken_ = false;
    bool ar_taken_ = false, r_taken_ = false;
    bool reading_ = false, read_asked_ = false, read_done_ = false;
    uint32_t b_response_ = 0, read_address_ = 0, read_value_ = 0, read_response_ = 0;
    uint64_t last_response_ = 0;
};
