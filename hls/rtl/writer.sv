// Writes rows of beats through an AXI4 port, up to OUTSTANDING bursts under way; idle when every one is acknowledged.
module writer #(
    parameter int DATA_BITS = 64,
    parameter int BURST = 64,
    parameter int OUTSTANDING = 16,
    parameter int DEPTH = 64
) (
    input  logic                 clk,
    input  logic                 rst_n,
    input  logic [         63:0] row_address,
    input  logic [         31:0] row_beats,
    input  logic                 row_valid,
    output logic                 row_ready,
    input  logic [DATA_BITS-1:0] beat,
    input  logic                 beat_valid,
    output logic                 beat_ready,
    output logic                 idle,
    output logic [         63:0] awaddr,
    output logic [          7:0] awlen,
    output logic                 awvalid,
    input  logic                 awready,
    output logic [DATA_BITS-1:0] wdata,
    output logic                 wlast,
    output logic                 wvalid,
    input  logic                 wready,
    input  logic                 bvalid,
    output logic                 bready
);
  logic [8:0] beats;
  logic [31:0] under_way;  // bursts without their response
  logic burst_valid, length_ready, length_valid, word_valid;
  logic [7:0] length, sent;  // of the burst that is written: its AWLEN, and its beats so far

  assign awvalid = burst_valid && length_ready && under_way != OUTSTANDING;
  assign awlen = beats[7:0] - 8'd1;
  assign bready = 1'b1;
  assign idle = !burst_valid && under_way == 0;
  wire asked = awvalid && awready;

  bursts #(.DATA_BITS(DATA_BITS), .BURST(BURST)) cut (
      .clk, .rst_n, .row_address, .row_beats, .row_valid, .row_ready,
      .address(awaddr), .beats, .valid(burst_valid), .ready(asked)
  );

  fifo #(.WIDTH(DATA_BITS), .DEPTH(DEPTH)) buffer (
      .clk, .rst_n, .in(beat), .in_valid(beat_valid), .in_ready(beat_ready),
      .out(wdata), .out_valid(word_valid), .out_ready(wready && length_valid)
  );

  fifo #(.WIDTH(8), .DEPTH(16)) lengths (
      .clk, .rst_n, .in(awlen), .in_valid(asked), .in_ready(length_ready),
      .out(length), .out_valid(length_valid), .out_ready(wvalid && wready && wlast)
  );

  assign wvalid = word_valid && length_valid;
  assign wlast = sent == length;

  always_ff @(posedge clk) begin
    if (wvalid && wready) sent <= wlast ? 8'd0 : sent + 8'd1;
    under_way <= under_way + {31'd0, asked} - {31'd0, bvalid};
    if (!rst_n) begin
      sent <= '0;
      under_way <= '0;
    end
  end
endmodule
