// The reduction kernel as plain SystemVerilog: registers, ports and results of hls/bucket/reduce.cpp, which says what it
// computes, so that a driver and a block design take either. Arithmetic is full IEEE binary32, subnormal numbers included, as
// in C-simulation of the C++: results are equal to the bit, but that a NaN is always the same quiet one.
`include "board.svh"

// What a port of AXI4 master has, named as Vitis HLS names it.
`define READ_PORT(NAME, BITS) \
    output logic [63:0] m_axi_``NAME``_ARADDR, \
    output logic [7:0] m_axi_``NAME``_ARLEN, \
    output logic [2:0] m_axi_``NAME``_ARSIZE, \
    output logic [1:0] m_axi_``NAME``_ARBURST, \
    output logic [3:0] m_axi_``NAME``_ARCACHE, \
    output logic [2:0] m_axi_``NAME``_ARPROT, \
    output logic m_axi_``NAME``_ARVALID, \
    input logic m_axi_``NAME``_ARREADY, \
    input logic [BITS-1:0] m_axi_``NAME``_RDATA, \
    input logic [1:0] m_axi_``NAME``_RRESP, \
    input logic m_axi_``NAME``_RLAST, \
    input logic m_axi_``NAME``_RVALID, \
    output logic m_axi_``NAME``_RREADY

`define WRITE_PORT(NAME, BITS) \
    output logic [63:0] m_axi_``NAME``_AWADDR, \
    output logic [7:0] m_axi_``NAME``_AWLEN, \
    output logic [2:0] m_axi_``NAME``_AWSIZE, \
    output logic [1:0] m_axi_``NAME``_AWBURST, \
    output logic [3:0] m_axi_``NAME``_AWCACHE, \
    output logic [2:0] m_axi_``NAME``_AWPROT, \
    output logic m_axi_``NAME``_AWVALID, \
    input logic m_axi_``NAME``_AWREADY, \
    output logic [BITS-1:0] m_axi_``NAME``_WDATA, \
    output logic [BITS/8-1:0] m_axi_``NAME``_WSTRB, \
    output logic m_axi_``NAME``_WLAST, \
    output logic m_axi_``NAME``_WVALID, \
    input logic m_axi_``NAME``_WREADY, \
    input logic [1:0] m_axi_``NAME``_BRESP, \
    input logic m_axi_``NAME``_BVALID, \
    output logic m_axi_``NAME``_BREADY

// Constants of a port: incrementing bursts of whole beats, normal memory that may be buffered.
`define READ_CONSTANTS(NAME, BITS) \
  assign m_axi_``NAME``_ARSIZE = 3'($clog2(BITS / 8)); \
  assign m_axi_``NAME``_ARBURST = 2'b01; \
  assign m_axi_``NAME``_ARCACHE = 4'b0011; \
  assign m_axi_``NAME``_ARPROT = 3'b000;

`define ENGINE(I, NAME) \
  `READ_CONSTANTS(NAME, PORT_BITS) \
  assign m_axi_``NAME``_AWSIZE = 3'($clog2(PORT_BITS / 8)); \
  assign m_axi_``NAME``_AWBURST = 2'b01; \
  assign m_axi_``NAME``_AWCACHE = 4'b0011; \
  assign m_axi_``NAME``_AWPROT = 3'b000; \
  assign m_axi_``NAME``_WSTRB = '1; \
  reduce_engine #( \
      .PORT_BITS(PORT_BITS), .TILE_BEATS(`ACCELOPS_REDUCE_TILE_BEATS), .ADDER_CYCLES(`ACCELOPS_REDUCE_ADDER_CYCLES), \
      .STREAM_DEPTH(`ACCELOPS_STREAM_DEPTH), .BURST(`ACCELOPS_BURST_BEATS), .OUTSTANDING(OUTSTANDING) \
  ) engine``I ( \
      .clk(ap_clk), .rst_n(ap_rst_n), \
      .flats(arguments[32*FLATS``I+:64]), .out(arguments[32*OUT``I+:64]), \
      .ranks, .scale, .wire_bf16, .out_bf16, .tile, .tile_valid(tile_valid[I]), .tile_ready(tile_ready[I]), \
      .idle(engine_idle[I]), \
      .araddr(m_axi_``NAME``_ARADDR), .arlen(m_axi_``NAME``_ARLEN), .arvalid(m_axi_``NAME``_ARVALID), \
      .arready(m_axi_``NAME``_ARREADY), .rdata(m_axi_``NAME``_RDATA), .rlast(m_axi_``NAME``_RLAST), \
      .rvalid(m_axi_``NAME``_RVALID), .rready(m_axi_``NAME``_RREADY), \
      .awaddr(m_axi_``NAME``_AWADDR), .awlen(m_axi_``NAME``_AWLEN), .awvalid(m_axi_``NAME``_AWVALID), \
      .awready(m_axi_``NAME``_AWREADY), .wdata(m_axi_``NAME``_WDATA), .wlast(m_axi_``NAME``_WLAST), \
      .wvalid(m_axi_``NAME``_WVALID), .wready(m_axi_``NAME``_WREADY), .bvalid(m_axi_``NAME``_BVALID), \
      .bready(m_axi_``NAME``_BREADY) \
  );

module reduce #(
    parameter int OUTSTANDING = `ACCELOPS_BURST_OUTSTANDING
) (
    input  logic        ap_clk,
    input  logic        ap_rst_n,
    output logic        interrupt,
    input  logic [11:0] s_axi_control_AWADDR,
    input  logic        s_axi_control_AWVALID,
    output logic        s_axi_control_AWREADY,
    input  logic [31:0] s_axi_control_WDATA,
    input  logic [ 3:0] s_axi_control_WSTRB,
    input  logic        s_axi_control_WVALID,
    output logic        s_axi_control_WREADY,
    output logic [ 1:0] s_axi_control_BRESP,
    output logic        s_axi_control_BVALID,
    input  logic        s_axi_control_BREADY,
    input  logic [11:0] s_axi_control_ARADDR,
    input  logic        s_axi_control_ARVALID,
    output logic        s_axi_control_ARREADY,
    output logic [31:0] s_axi_control_RDATA,
    output logic [ 1:0] s_axi_control_RRESP,
    output logic        s_axi_control_RVALID,
    input  logic        s_axi_control_RREADY,
    `READ_PORT(gmem0, `ACCELOPS_PORT_BITS),
    `WRITE_PORT(gmem0, `ACCELOPS_PORT_BITS),
    `READ_PORT(gmem1, `ACCELOPS_PORT_BITS),
    `WRITE_PORT(gmem1, `ACCELOPS_PORT_BITS),
    `READ_PORT(gmem2, `ACCELOPS_PORT_BITS),
    `WRITE_PORT(gmem2, `ACCELOPS_PORT_BITS),
    `READ_PORT(gmem3, `ACCELOPS_PORT_BITS),
    `WRITE_PORT(gmem3, `ACCELOPS_PORT_BITS),
    `READ_PORT(gmem4, 32)
);
  localparam int PORT_BITS = `ACCELOPS_PORT_BITS;
  localparam int ENGINES = 4;
  localparam int FLATS0 = `ACCELOPS_REDUCE_FLATS0, FLATS1 = `ACCELOPS_REDUCE_FLATS1;
  localparam int FLATS2 = `ACCELOPS_REDUCE_FLATS2, FLATS3 = `ACCELOPS_REDUCE_FLATS3;
  localparam int OUT0 = `ACCELOPS_REDUCE_OUT0, OUT1 = `ACCELOPS_REDUCE_OUT1;
  localparam int OUT2 = `ACCELOPS_REDUCE_OUT2, OUT3 = `ACCELOPS_REDUCE_OUT3;

  logic [32*`ACCELOPS_REDUCE_WORDS-1:0] arguments;
  logic start, finished, running;

  assign s_axi_control_BRESP = 2'b00;
  assign s_axi_control_RRESP = 2'b00;
  control #(
      .WORDS(`ACCELOPS_REDUCE_WORDS), .ARGUMENTS(`ACCELOPS_REDUCE_ARGUMENTS), .VERSION_WORD(`ACCELOPS_REDUCE_IDENTITY),
      .VERSION(`ACCELOPS_REDUCE_VERSION), .CONFIG_HASH(`ACCELOPS_REDUCE_CONFIG_HASH)
  ) registers (
      .clk(ap_clk), .rst_n(ap_rst_n), .interrupt, .arguments, .start, .finished,
      .awaddr(s_axi_control_AWADDR), .awvalid(s_axi_control_AWVALID), .awready(s_axi_control_AWREADY),
      .wdata(s_axi_control_WDATA), .wstrb(s_axi_control_WSTRB), .wvalid(s_axi_control_WVALID),
      .wready(s_axi_control_WREADY), .bvalid(s_axi_control_BVALID), .bready(s_axi_control_BREADY),
      .araddr(s_axi_control_ARADDR), .arvalid(s_axi_control_ARVALID), .arready(s_axi_control_ARREADY),
      .rdata(s_axi_control_RDATA), .rvalid(s_axi_control_RVALID), .rready(s_axi_control_RREADY)
  );

  wire [31:0] ranks = arguments[32*`ACCELOPS_REDUCE_RANKS+:32];
  wire [31:0] scale = arguments[32*`ACCELOPS_REDUCE_SCALE+:32];
  wire [31:0] buckets = ranks == 0 ? 0 : arguments[32*`ACCELOPS_REDUCE_BUCKETS+:32];
  wire wire_bf16 = arguments[32*`ACCELOPS_REDUCE_FLAGS];
  wire out_bf16 = arguments[32*`ACCELOPS_REDUCE_FLAGS+1];

  logic [31:0] word;
  logic word_valid, word_ready, taken, scheduled;
  `READ_CONSTANTS(gmem4, 32)
  reader #(.DATA_BITS(32), .BURST(`ACCELOPS_BURST_BEATS), .OUTSTANDING(OUTSTANDING), .DEPTH(`ACCELOPS_STREAM_DEPTH)) descriptors (
      .clk(ap_clk), .rst_n(ap_rst_n), .row_address(arguments[32*`ACCELOPS_REDUCE_DESCRIPTORS+:64]),
      .row_beats(buckets << 2), .row_valid(start), .row_ready(taken),
      .araddr(m_axi_gmem4_ARADDR), .arlen(m_axi_gmem4_ARLEN), .arvalid(m_axi_gmem4_ARVALID),
      .arready(m_axi_gmem4_ARREADY), .rdata(m_axi_gmem4_RDATA), .rlast(m_axi_gmem4_RLAST),
      .rvalid(m_axi_gmem4_RVALID), .rready(m_axi_gmem4_RREADY),
      .beat(word), .beat_valid(word_valid), .beat_ready(word_ready)
  );

  logic [127:0] tile;
  logic [ENGINES-1:0] tile_valid, tile_ready, engine_idle;
  reduce_schedule #(.ENGINES(ENGINES), .PORT_BITS(PORT_BITS), .TILE_BEATS(`ACCELOPS_REDUCE_TILE_BEATS)) schedule (
      .clk(ap_clk), .rst_n(ap_rst_n), .start, .buckets, .wire_bf16, .out_bf16,
      .word, .word_valid, .word_ready, .tile, .tile_valid, .tile_ready, .idle(scheduled)
  );
  `ENGINE(0, gmem0)
  `ENGINE(1, gmem1)
  `ENGINE(2, gmem2)
  `ENGINE(3, gmem3)

  assign finished = running && scheduled && &engine_idle;
  always_ff @(posedge ap_clk) begin
    if (start) running <= 1'b1;
    if (finished || !ap_rst_n) running <= 1'b0;
  end
endmodule
