# A design with the engine in it, on Zynq UltraScale+ or an Artix-7 with a MAC of its own. Not run by this project's tests.
# The engine has one clock and a synchronous reset: inside of it there is nothing to constrain.

# PS and engine on one clock of the PS: it is the PS's to define. On 7-series, from a pin (the board's own):
# create_clock -name sys -period 8.000 [get_ports sys_clk]

# A MAC with clocks of its own: frames cross through asynchronous queues (axis_data_fifo with IS_ACLK_ASYNC, packet mode where the
# MAC does not wait). Their crossings are the IP's; between the clock groups nothing else is timed.
# set_clock_groups -asynchronous -group [get_clocks sys] -group [get_clocks -of_objects [get_pins mac/rx_clk]]

# The reset is synchronous to clk: proc_sys_reset makes it so. No false path: it has a fan-out and must meet the clock.
# irq is a level in the engine's clock domain; the PS's interrupt inputs synchronise it.
# set_false_path -from [get_pins -hierarchical *irq_reg/C] -to [get_ports irq]
