// examples/litex/soc.py at its pins. It does what +script=FILE says, a line each, and prints what comes of it:
//   w ADDRESS VALUE   write a word through UARTBone      r ADDRESS   read one: "read VALUE"
//   f BYTES HEX       a frame from the line              i           wait for the interrupt
// Frames that leave are printed as "frame HEX".
module litex_bench;
  localparam int BIT = 50;  // cycles
  localparam int LATEST = 2_000_000;

  bit clk;
  bit rx = 1;
  bit in_valid;
  bit [7:0] in_data;
  wire tx, irq, out_valid;
  wire [7:0] out_data;
  int cycle;
  always #10 clk = ~clk;

  soc dut (
      .sys_clk(clk),
      .serial_rx(rx),
      .serial_tx(tx),
      .eth_sink_valid(in_valid),
      .eth_sink_data(in_data),
      .eth_source_valid(out_valid),
      .eth_source_data(out_data),
      .irq(irq),
      .sim_trace(1'b0)
  );

  always @(posedge clk) begin
    cycle <= cycle + 1;
    if (cycle == LATEST) $fatal(1, "nothing has ended the bench");
  end

  string leaving;
  always @(posedge clk)
    if (out_valid) leaving = {leaving, $sformatf("%02x", out_data)};
    else if (leaving != "") begin
      $display("frame %s", leaving);
      leaving = "";
    end

  task automatic give(input bit [7:0] value);
    bit [9:0] bits;
    bits = {1'b1, value, 1'b0};
    for (int n = 0; n < 10; n++) begin
      rx = bits[n];
      repeat (BIT) @(negedge clk);
    end
  endtask

  task automatic take(output bit [7:0] value);
    while (tx) @(negedge clk);
    repeat (BIT / 2) @(negedge clk);
    for (int n = 0; n < 8; n++) begin
      repeat (BIT) @(negedge clk);
      value[n] = tx;
    end
    repeat (BIT) @(negedge clk);
  endtask

  task automatic give_word(input bit [31:0] value);
    for (int n = 3; n >= 0; n--) give(value[8*n+:8]);
  endtask

  int file, count;
  string what;
  bit [31:0] address, value;
  bit [7:0] part;

  initial begin
    if (!$value$plusargs("script=%s", what)) $fatal(1, "no script");
    file = $fopen(what, "r");
    repeat (1000) @(negedge clk);
    while ($fscanf(file, "%s", what) == 1) begin
      if (what == "w" || what == "r") begin
        void'($fscanf(file, "%h", address));
        give(what == "w" ? 8'h01 : 8'h02);
        give(8'h01);
        give_word(address >> 2);
      end
      if (what == "w") begin
        void'($fscanf(file, "%h", value));
        give_word(value);
      end else if (what == "r") begin
        for (int n = 3; n >= 0; n--) begin
          take(part);
          value[8*n+:8] = part;
        end
        $display("read %h", value);
      end else if (what == "f") begin
        void'($fscanf(file, "%d", count));
        in_valid = 1;
        for (int n = count; n > 0; n--) begin
          void'($fscanf(file, "%h", in_data));
          @(negedge clk);
        end
        in_valid = 0;
        repeat (2000) @(negedge clk);
      end else if (what == "i") while (!irq) @(negedge clk);
    end
    $finish;
  end
endmodule
