// Main program of a cocotb simulation. Like cocotb's own, with two additions: a clock that costs no Python and no VPI
// (--clock PICOSECONDS toggles the port clk with that period), and a waveform with a chosen name (--trace FILE).
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "Vtop.h"
#include "clock.h"  // toggle_clock(), made for this top
#include "verilated.h"
#include "verilated_vpi.h"

#if VM_TRACE
#if VM_TRACE_FST
#include "verilated_fst_c.h"
using Trace = VerilatedFstC;
#else
#include "verilated_vcd_c.h"
using Trace = VerilatedVcdC;
#endif
#endif

extern "C" void vlog_startup_routines_bootstrap(void);

static uint64_t now = 0;  // ps
double sc_time_stamp() { return static_cast<double>(now); }

// Value-change callbacks may change signals themselves: repeat until nothing happens.
static void settle() {
    while (VerilatedVpi::callValueCbs()) {
    }
}

int main(int argc, char** argv) {
    uint64_t half_period = 0;
    const char* trace_file = nullptr;
    for (int i = 1; i + 1 < argc; i++) {
        if (!std::strcmp(argv[i], "--clock")) half_period = std::strtoull(argv[i + 1], nullptr, 0) / 2;
        if (!std::strcmp(argv[i], "--trace")) trace_file = argv[i + 1];
    }
    Verilated::commandArgs(argc, argv);
    Verilated::fatalOnVpiError(false);
    const auto top = std::make_unique<Vtop>("");

#if VM_TRACE
    std::unique_ptr<Trace> trace;
    Verilated::traceEverOn(true);
    if (trace_file) {
        trace = std::make_unique<Trace>();
        top->trace(trace.get(), 99);
        trace->open(trace_file);
    }
#else
    (void)trace_file;
#endif

    vlog_startup_routines_bootstrap();
    VerilatedVpi::callCbs(cbStartOfSimulation);
    settle();

    constexpr uint64_t kNever = ~0ULL;
    uint64_t next_edge = half_period ? half_period : kNever;
    while (!Verilated::gotFinish()) {
        do {
            do {
                top->eval_step();
                VerilatedVpi::clearEvalNeeded();
                VerilatedVpi::doInertialPuts();
                settle();
            } while (VerilatedVpi::evalNeeded());
            VerilatedVpi::callCbs(cbReadWriteSynch);
            VerilatedVpi::doInertialPuts();
            settle();
        } while (VerilatedVpi::evalNeeded());
        top->eval_end_step();
        VerilatedVpi::callCbs(cbReadOnlySynch);
#if VM_TRACE
        if (trace) trace->dump(now);
#endif
        const uint64_t deadline = VerilatedVpi::cbNextDeadline();
        const uint64_t next = std::min(deadline, next_edge);
        if (next == kNever) break;
        now = next;
        VerilatedVpi::callCbs(cbNextSimTime);
        settle();
        if (now == deadline) {
            VerilatedVpi::callTimedCbs();
            settle();
        }
        if (now == next_edge) {
            // As if a callback had written it: those who wait for the edge see the values before it.
            toggle_clock(*top);
            next_edge = now + half_period;
            settle();
        }
    }

    top->final();
    VerilatedVpi::callCbs(cbEndOfSimulation);
#if VM_TRACE
    if (trace) trace->close();
#endif
    return Verilated::threadContextp()->errorCount() > 0;
}
