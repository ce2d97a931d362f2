// Asks for a tile's rows, rank after rank.
module reduce_load #(
    parameter int PORT_BITS = 64
) (
    input  logic         clk,
    input  logic         rst_n,
    input  logic [ 63:0] flats,
    input  logic [ 31:0] ranks,
    input  logic         wire_bf16,
    input  logic [127:0] tile,
    input  logic         tile_valid,
    output logic         tile_ready,
    output logic [ 63:0] row_address,
    output logic [ 31:0] row_beats,
    output logic         row_valid,
    input  logic         row_ready
);
  localparam int BEAT_SHIFT = $clog2(PORT_BITS / 8);
  localparam int LANE_SHIFT = $clog2(PORT_BITS / 32);

  logic [31:0] rank, further;  // the row's rank, and how many beats it lies behind that of the first
  wire [31:0] flat = tile[31:0], stride = tile[63:32], elements = tile[127:96];
  wire [31:0] beat = flat + further;
  wire last = rank + 1 == ranks;

  assign row_address = flats + ({32'd0, beat} << BEAT_SHIFT);
  assign row_beats = wire_bf16 ? (elements + (1 << (LANE_SHIFT + 1)) - 1) >> (LANE_SHIFT + 1)
                               : (elements + (1 << LANE_SHIFT) - 1) >> LANE_SHIFT;
  assign row_valid = tile_valid;
  assign tile_ready = row_ready && last;

  always_ff @(posedge clk) begin
    if (tile_valid && row_ready) begin
      rank <= last ? 0 : rank + 1;
      further <= last ? 0 : further + stride;
    end
    if (!rst_n) {rank, further} <= '0;
  end
endmodule
