# The engine as an IP for Vivado's block designs.
#   vivado -mode batch -source package_ip.tcl -tclargs FOLDER PART [TOP]
# FOLDER is what `tiptoe verilog -o FOLDER` has written; the IP goes to FOLDER/ip. Not run by this project's tests.
if {$argc < 2} {
    puts stderr "usage: -tclargs FOLDER PART \[TOP\]"
    exit 2
}
lassign $argv folder part top
if {$top eq ""} { set top tiptoe_engine }
create_project -in_memory -part $part
set list [open [file join $folder files.f]]
foreach source [split [string trim [read $list]] "\n"] { add_files -norecurse [list [file join $folder $source]] }
close $list
set_property top $top [current_fileset]
update_compile_order -fileset sources_1

set ip [file join $folder ip]
ipx::package_project -root_dir $ip -vendor tiptoe -library user -taxonomy /UserIP -import_files
set core [ipx::current_core]
set_property name $top $core
set_property display_name "Tiptoe TCP offload engine" $core
# The ports' names are AXI's, so the interfaces are found; what is not said by names is which clock and reset they have.
foreach bus {s_axil m_axi s_axis_rx m_axis_tx} {
    ipx::infer_bus_interface [get_property name [ipx::get_ports -filter "NAME =~ ${bus}_*" -of_objects $core]] \
        [expr {$bus in {s_axil m_axi} ? "xilinx.com:interface:aximm_rtl:1.0" : "xilinx.com:interface:axis_rtl:1.0"}] $core
    ipx::associate_bus_interfaces -busif $bus -clock clk $core
}
set reset [ipx::add_bus_parameter POLARITY [ipx::get_bus_interfaces rst -of_objects $core]]
set_property value ACTIVE_HIGH $reset
ipx::create_xgui_files $core
ipx::update_checksums $core
ipx::save_core $core
puts "IP written to $ip"
