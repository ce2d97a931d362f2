// One engine with its port of memory: tiles go to three stages at once, which overlap as those of hls/bucket/reduce.cpp do.
module reduce_engine #(
    parameter int PORT_BITS = 64,
    parameter int TILE_BEATS = 512,
    parameter int ADDER_CYCLES = 16,
    parameter int STREAM_DEPTH = 64,
    parameter int BURST = 64,
    parameter int OUTSTANDING = 16
) (
    input  logic                 clk,
    input  logic                 rst_n,
    input  logic [         63:0] flats,
    input  logic [         63:0] out,
    input  logic [         31:0] ranks,
    input  logic [         31:0] scale,
    input  logic                 wire_bf16,
    input  logic                 out_bf16,
    input  logic [        127:0] tile,
    input  logic                 tile_valid,
    output logic                 tile_ready,
    output logic                 idle,
    output logic [         63:0] araddr,
    output logic [          7:0] arlen,
    output logic                 arvalid,
    input  logic                 arready,
    input  logic [PORT_BITS-1:0] rdata,
    input  logic                 rlast,
    input  logic                 rvalid,
    output logic                 rready,
    output logic [         63:0] awaddr,
    output logic [          7:0] awlen,
    output logic                 awvalid,
    input  logic                 awready,
    output logic [PORT_BITS-1:0] wdata,
    output logic                 wlast,
    output logic                 wvalid,
    input  logic                 wready,
    input  logic                 bvalid,
    output logic                 bready
);
  localparam int READ_BUFFER = 8 * BURST;  // 512 beats of 64 bits are one block RAM
  localparam int LOAD = 0, ACCUMULATE = 1, ROUND = 2, STAGES = 3;

  logic [STAGES-1:0] room, given, taken;
  logic [127:0] of[0:STAGES-1];
  wire dealt = tile_valid && tile_ready;
  assign tile_ready = &room;
  generate
    for (genvar stage = 0; stage < STAGES; stage++) begin : queues
      fifo #(.WIDTH(128), .DEPTH(4)) queue (
          .clk, .rst_n, .in(tile), .in_valid(dealt), .in_ready(room[stage]),
          .out(of[stage]), .out_valid(given[stage]), .out_ready(taken[stage])
      );
    end
  endgenerate

  logic [63:0] read_address, write_address;
  logic [31:0] read_beats, write_beats;
  logic read_valid, read_ready, write_valid, write_ready;
  logic [PORT_BITS-1:0] input_beat, result;
  logic [2*PORT_BITS-1:0] sums;
  logic input_valid, input_ready, sums_valid, sums_ready, result_valid, result_ready, written;

  reduce_load #(.PORT_BITS(PORT_BITS)) load (
      .clk, .rst_n, .flats, .ranks, .wire_bf16,
      .tile(of[LOAD]), .tile_valid(given[LOAD]), .tile_ready(taken[LOAD]),
      .row_address(read_address), .row_beats(read_beats), .row_valid(read_valid), .row_ready(read_ready)
  );
  reader #(.DATA_BITS(PORT_BITS), .BURST(BURST), .OUTSTANDING(OUTSTANDING), .DEPTH(READ_BUFFER)) inputs (
      .clk, .rst_n, .row_address(read_address), .row_beats(read_beats), .row_valid(read_valid), .row_ready(read_ready),
      .araddr, .arlen, .arvalid, .arready, .rdata, .rlast, .rvalid, .rready,
      .beat(input_beat), .beat_valid(input_valid), .beat_ready(input_ready)
  );
  reduce_accumulate #(.PORT_BITS(PORT_BITS), .TILE_BEATS(TILE_BEATS), .ADDER_CYCLES(ADDER_CYCLES)) accumulate (
      .clk, .rst_n, .ranks, .scale, .wire_bf16,
      .tile(of[ACCUMULATE]), .tile_valid(given[ACCUMULATE]), .tile_ready(taken[ACCUMULATE]),
      .beat(input_beat), .beat_valid(input_valid), .beat_ready(input_ready), .sums, .sums_valid, .sums_ready
  );
  reduce_round #(.PORT_BITS(PORT_BITS)) round (
      .clk, .rst_n, .out, .wire_bf16, .out_bf16,
      .tile(of[ROUND]), .tile_valid(given[ROUND]), .tile_ready(taken[ROUND]), .sums, .sums_valid, .sums_ready,
      .row_address(write_address), .row_beats(write_beats), .row_valid(write_valid), .row_ready(write_ready),
      .beat(result), .beat_valid(result_valid), .beat_ready(result_ready)
  );
  writer #(.DATA_BITS(PORT_BITS), .BURST(BURST), .OUTSTANDING(OUTSTANDING), .DEPTH(STREAM_DEPTH)) results (
      .clk, .rst_n, .row_address(write_address), .row_beats(write_beats), .row_valid(write_valid), .row_ready(write_ready),
      .beat(result), .beat_valid(result_valid), .beat_ready(result_ready), .idle(written),
      .awaddr, .awlen, .awvalid, .awready, .wdata, .wlast, .wvalid, .wready, .bvalid, .bready
  );

  logic [3:0] tiles;  // dealt and not rounded
  assign idle = tiles == 0 && written;
  always_ff @(posedge clk) begin
    tiles <= tiles + {3'd0, dealt} - {3'd0, given[ROUND] && taken[ROUND]};
    if (!rst_n) tiles <= '0;
  end
endmodule
