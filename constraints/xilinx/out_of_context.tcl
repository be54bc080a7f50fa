# The engine alone through Vivado, without pins: how large and how fast it is on a part.
#   vivado -mode batch -source out_of_context.tcl -tclargs FOLDER PART [TOP]
# FOLDER is what `tiptoe verilog -o FOLDER` has written; reports go to FOLDER/vivado. Not run by this project's tests.
if {$argc < 2} {
    puts stderr "usage: -tclargs FOLDER PART \[TOP\]"
    exit 2
}
lassign $argv folder part top
if {$top eq ""} { set top tiptoe_engine }
set reports [file join $folder vivado]
file mkdir $reports

set list [open [file join $folder files.f]]
foreach source [split [string trim [read $list]] "\n"] { read_verilog [list [file join $folder $source]] }
close $list
read_xdc -mode out_of_context [file join $folder tiptoe_ooc.xdc]

# Hierarchy is rebuilt behind the synthesis, so that the report has the blocks by name.
synth_design -top $top -part $part -mode out_of_context -flatten_hierarchy rebuilt
report_utilization -hierarchical -hierarchical_depth 3 -file [file join $reports utilization_synth.rpt]
opt_design
place_design
phys_opt_design
route_design
report_utilization -hierarchical -hierarchical_depth 3 -file [file join $reports utilization.rpt]
report_timing_summary -max_paths 10 -file [file join $reports timing.rpt]
report_ram_utilization -file [file join $reports memories.rpt]
write_checkpoint -force [file join $reports $top.dcp]
set slack [get_property SLACK [get_timing_paths -max_paths 1]]
puts "slack of the slowest path: $slack ns (reports in $reports)"
if {$slack < 0} { exit 1 }
