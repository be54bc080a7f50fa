// $top at its pins, checked: registers by AXI4-Lite, then a TCP segment that nobody waits for, which the engine answers with
// a reset (RFC 9293 3.5.2) as a frame of its own. Host memory is not needed for that: a transfer on m_axi is an error here.
// Ends with "PASS" or in $$fatal. Made by `tiptoe verilog`; any simulator of SystemVerilog will do.

module tiptoe_tb;
  localparam int DATA_BITS = $data_bits;
  localparam int ADDR_BITS = $addr_bits;
  localparam int BYTES = DATA_BITS / 8;

  // Registers (registers.md), and what the read-only ones hold.
$registers

  localparam bit [1:0] OKAY = 2'b00, SLVERR = 2'b10;
  localparam bit [47:0] OUR_MAC = 48'h0200_0000_0001, PEER_MAC = 48'h0200_0000_0002;
  localparam bit [31:0] OUR_IP = 32'h0a00_0001, PEER_IP = 32'h0a00_0002;
  localparam bit [15:0] OUR_PORT = 16'd80, PEER_PORT = 16'd40000;
  localparam bit [31:0] SEQUENCE = 32'h1234_5678;
  localparam int LATEST = $latest;  // cycles after which something hangs: tables are scrubbed first

  bit clk, rst = 1;
  int cycle;
  always #4 clk = ~clk;
  always @(posedge clk) cycle <= cycle + 1;

  // ------------------------------------------------------------------ pins
$signals

  $top dut (
$connections
  );

  always @(posedge clk) begin
    if (cycle == LATEST) $$fatal(1, "nothing has ended the bench");
    if (!rst && (m_axi_awvalid || m_axi_wvalid || m_axi_arvalid)) $$fatal(1, "a transfer on m_axi: there is no host memory");
  end

  task automatic check(input bit holds, input string what);
    if (!holds) $$fatal(1, "cycle %0d: %s", cycle, what);
  endtask

  // What the bench drives it changes at the falling edge, what it sees it sees at the rising one; tasks begin and end at the former.

  // ------------------------------------------------------------------ AXI4-Lite
  task automatic write_part(input bit [19:0] address, input bit [31:0] value, input bit [3:0] strobes, input bit [1:0] answer);
    bit address_taken, data_taken;
    s_axil_awaddr = address;
    s_axil_wdata = value;
    s_axil_wstrb = strobes;
    s_axil_awvalid = 1;
    s_axil_wvalid = 1;
    while (s_axil_awvalid || s_axil_wvalid) begin
      @(posedge clk);
      address_taken = s_axil_awready;
      data_taken = s_axil_wready;
      @(negedge clk);
      if (address_taken) s_axil_awvalid = 0;
      if (data_taken) s_axil_wvalid = 0;
    end
    s_axil_bready = 1;
    do @(posedge clk); while (!s_axil_bvalid);
    check(s_axil_bresp == answer, $$sformatf("write of %h to %h is answered %b, not %b", value, address, s_axil_bresp, answer));
    @(negedge clk) s_axil_bready = 0;
  endtask

  task automatic write(input bit [19:0] address, input bit [31:0] value);
    write_part(address, value, 4'b1111, OKAY);
  endtask

  task automatic read(input bit [19:0] address, output bit [31:0] value);
    s_axil_araddr = address;
    s_axil_arvalid = 1;
    do @(posedge clk); while (!s_axil_arready);
    @(negedge clk) s_axil_arvalid = 0;
    s_axil_rready = 1;
    do @(posedge clk); while (!s_axil_rvalid);
    check(s_axil_rresp == OKAY, $$sformatf("read of %h is answered %b", address, s_axil_rresp));
    value = s_axil_rdata;
    @(negedge clk) s_axil_rready = 0;
  endtask

  task automatic expect_read(input bit [19:0] address, input bit [31:0] expected);
    bit [31:0] value;
    read(address, value);
    check(value == expected, $$sformatf("register %h reads %h, not %h", address, value, expected));
  endtask

  // ------------------------------------------------------------------ frames
  byte unsigned frame[60], answer[60];

  task automatic put(input int place, input int bytes, input bit [63:0] value);
    for (int n = 0; n < bytes; n++) frame[place+n] = value[8*(bytes-1-n)+:8];
  endtask

  function automatic bit [63:0] get(input int place, input int bytes);
    get = 0;
    for (int n = 0; n < bytes; n++) get = {get[55:0], answer[place+n]};
  endfunction

  // Internet checksum (RFC 1071) of part of a frame, from a sum to begin with.
  function automatic bit [15:0] checksum(input byte unsigned bytes[60], input int first, input int count, input bit [31:0] start);
    bit [31:0] sum;
    sum = start;
    for (int n = 0; n < count; n += 2) sum += {16'd0, bytes[first+n], bytes[first+n+1]};
    sum = {16'd0, sum[31:16]} + {16'd0, sum[15:0]};
    sum = {16'd0, sum[31:16]} + {16'd0, sum[15:0]};
    return ~sum[15:0];
  endfunction

  function automatic bit [31:0] pseudo(input bit [31:0] one, input bit [31:0] other);
    return {16'd0, one[31:16]} + {16'd0, one[15:0]} + {16'd0, other[31:16]} + {16'd0, other[15:0]} + 32'd6 + 32'd20;
  endfunction

  task automatic send_syn();
    foreach (frame[n]) frame[n] = 0;
    put(0, 6, 64'(OUR_MAC));
    put(6, 6, 64'(PEER_MAC));
    put(12, 2, 64'h0800);
    put(14, 4, 64'h4500_0028);  // 40 bytes
    put(22, 2, 64'h4006);  // time to live 64, TCP
    put(26, 4, 64'(PEER_IP));
    put(30, 4, 64'(OUR_IP));
    put(24, 2, 64'(checksum(frame, 14, 20, 0)));
    put(34, 2, 64'(PEER_PORT));
    put(36, 2, 64'(OUR_PORT));
    put(38, 4, 64'(SEQUENCE));
    put(46, 4, 64'h5002_ffff);  // SYN
    put(50, 2, 64'(checksum(frame, 34, 20, pseudo(PEER_IP, OUR_IP))));
    for (int first = 0; first < 60; first += BYTES) begin
      for (int n = 0; n < BYTES; n++) begin
        s_axis_rx_tdata[8*n+:8] = first + n < 60 ? frame[first+n] : 8'd0;
        s_axis_rx_tkeep[n] = first + n < 60;
      end
      s_axis_rx_tlast = first + BYTES >= 60;
      s_axis_rx_tvalid = 1;
      do @(posedge clk); while (!s_axis_rx_tready);
      @(negedge clk);
    end
    s_axis_rx_tvalid = 0;
  endtask

  task automatic receive();
    int count;
    bit last;
    count = 0;
    last = 0;
    m_axis_tx_tready = 1;
    while (!last) begin
      do @(posedge clk); while (!m_axis_tx_tvalid);
      for (int n = 0; n < BYTES; n++)
        if (m_axis_tx_tkeep[n]) begin
          check(count < 60, "the answer is longer than 60 bytes");
          answer[count] = m_axis_tx_tdata[8*n+:8];
          count++;
        end
      last = m_axis_tx_tlast;
    end
    @(negedge clk) m_axis_tx_tready = 0;
    check(count == 60, $$sformatf("the answer has %0d bytes, not 60", count));
  endtask

  // ------------------------------------------------------------------ the story
  bit [31:0] value;

  initial begin
    repeat (5) @(negedge clk);
    rst = 0;
    expect_read(ID, ID_VALUE);
    expect_read(VERSION, VERSION_VALUE);
    read(LIMITS, value);
    check(int'(value[5:0]) == BYTES && int'(value[14:8]) == ADDR_BITS, $$sformatf("LIMITS %h are of other widths", value));

    write(MAC_LO, OUR_MAC[31:0]);
    write(MAC_HI, {16'd0, OUR_MAC[47:32]});
    write(IP_ADDR, OUR_IP);
    expect_read(MAC_LO, OUR_MAC[31:0]);
    expect_read(IP_ADDR, OUR_IP);
    write_part(IP_ADDR, 32'hffff_ffff, 4'b0011, SLVERR);  // whole words only
    expect_read(IP_ADDR, OUR_IP);

    do read(STATUS, value); while (!value[STATUS_READY]);
    write(CONTROL, CONTROL_ENABLE | CONTROL_RST_UNKNOWN);
    expect_read(CONTROL, CONTROL_ENABLE | CONTROL_RST_UNKNOWN);  // frames that come before are dropped
    fork
      send_syn();
      receive();
    join
    check(48'(get(0, 6)) == PEER_MAC && 48'(get(6, 6)) == OUR_MAC, "the answer's MAC addresses");
    check(get(12, 2) == 64'h0800 && get(14, 1) == 64'h45 && get(23, 1) == 64'd6, "the answer is no TCP over IPv4");
    check(32'(get(26, 4)) == OUR_IP && 32'(get(30, 4)) == PEER_IP, "the answer's IP addresses");
    check(checksum(answer, 14, 20, 0) == 0, "the checksum of the answer's IP header");
    check(16'(get(34, 2)) == OUR_PORT && 16'(get(36, 2)) == PEER_PORT, "the answer's ports");
    check(get(38, 4) == 0 && 32'(get(42, 4)) == SEQUENCE + 1, "the reset's sequence numbers (RFC 9293 3.5.2)");
    check(get(46, 2) == 64'h5014, "the answer is no reset with an acknowledgement");
    check(checksum(answer, 34, 20, pseudo(OUR_IP, PEER_IP)) == 0, "the answer's TCP checksum");
    check(!irq, "nothing has asked for an interrupt");
    $$display("PASS: registers, and a reset for a segment of no connection, %0d cycles", cycle);
    $$finish;
  end
endmodule
