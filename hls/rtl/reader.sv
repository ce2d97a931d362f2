// Reads rows of beats through an AXI4 port, up to OUTSTANDING bursts under way. A burst is asked for only when DEPTH beats
// of buffer have room for all of it, so that the port never makes memory wait.
module reader #(
    parameter int DATA_BITS = 64,
    parameter int BURST = 64,
    parameter int OUTSTANDING = 16,
    parameter int DEPTH = 512
) (
    input  logic                 clk,
    input  logic                 rst_n,
    input  logic [         63:0] row_address,
    input  logic [         31:0] row_beats,
    input  logic                 row_valid,
    output logic                 row_ready,
    output logic [         63:0] araddr,
    output logic [          7:0] arlen,
    output logic                 arvalid,
    input  logic                 arready,
    input  logic [DATA_BITS-1:0] rdata,
    input  logic                 rlast,
    input  logic                 rvalid,
    output logic                 rready,
    output logic [DATA_BITS-1:0] beat,
    output logic                 beat_valid,
    input  logic                 beat_ready
);
  logic [ 8:0] beats;
  logic [31:0] promised;  // beats asked for that have not left the buffer
  logic [31:0] under_way;  // bursts
  logic burst_valid;

  // Once true it stays true until the burst is asked for: only that raises either count.
  assign arvalid = burst_valid && promised + {23'd0, beats} <= DEPTH && under_way != OUTSTANDING;
  assign arlen = beats[7:0] - 8'd1;
  wire asked = arvalid && arready;

  bursts #(.DATA_BITS(DATA_BITS), .BURST(BURST)) cut (
      .clk, .rst_n, .row_address, .row_beats, .row_valid, .row_ready,
      .address(araddr), .beats, .valid(burst_valid), .ready(asked)
  );

  fifo #(.WIDTH(DATA_BITS), .DEPTH(DEPTH)) buffer (
      .clk, .rst_n, .in(rdata), .in_valid(rvalid), .in_ready(rready),
      .out(beat), .out_valid(beat_valid), .out_ready(beat_ready)
  );

  always_ff @(posedge clk) begin
    promised <= promised + (asked ? {23'd0, beats} : 0) - {31'd0, beat_valid && beat_ready};
    under_way <= under_way + {31'd0, asked} - {31'd0, rvalid && rready && rlast};
    if (!rst_n) begin
      promised <= '0;
      under_way <= '0;
    end
  end
endmodule
