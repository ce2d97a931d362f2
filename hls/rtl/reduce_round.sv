// Sums to beats of the result, rounded where it is bf16, zeros behind the last element: a cycle for each beat's worth of
// floats. Asks for the tile's place in memory, once, before its first beat.
module reduce_round #(
    parameter int PORT_BITS = 64
) (
    input  logic                   clk,
    input  logic                   rst_n,
    input  logic [           63:0] out,
    input  logic                   wire_bf16,
    input  logic                   out_bf16,
    input  logic [          127:0] tile,
    input  logic                   tile_valid,
    output logic                   tile_ready,
    input  logic [2*PORT_BITS-1:0] sums,
    input  logic                   sums_valid,
    output logic                   sums_ready,
    output logic [           63:0] row_address,
    output logic [           31:0] row_beats,
    output logic                   row_valid,
    input  logic                   row_ready,
    output logic [  PORT_BITS-1:0] beat,
    output logic                   beat_valid,
    input  logic                   beat_ready
);
  localparam int FLOATS = PORT_BITS / 32;
  localparam int LANE_SHIFT = $clog2(FLOATS);
  localparam int BEAT_SHIFT = $clog2(PORT_BITS / 8);

  // The nearest bf16, ties to even; a NaN stays one (quiet).
  function automatic [15:0] bf16(input [31:0] bits);
    logic [31:0] raised;
    begin
      raised = bits + 32'h7fff + {31'd0, bits[16]};
      bf16 = bits[30:0] > 31'h7f800000 ? bits[31:16] | 16'h40 : raised[31:16];
    end
  endfunction

  logic placed;
  logic [31:0] word;
  logic [PORT_BITS/2-1:0] held;  // the even half of a beat of bf16
  wire [31:0] first_beat = tile[95:64], elements = tile[127:96];
  wire [31:0] words = (elements + FLOATS - 1) >> LANE_SHIFT;
  wire odd = word[0], last = word + 1 == words;
  wire emits = !out_bf16 || odd || last;
  wire trip = tile_valid && placed && sums_valid && (!emits || beat_ready);

  assign row_address = out + ({32'd0, first_beat} << BEAT_SHIFT);
  assign row_beats = out_bf16 ? (words + 1) >> 1 : words;
  assign row_valid = tile_valid && !placed;
  assign sums_ready = trip && (!wire_bf16 || odd || last);
  assign tile_ready = trip && last;

  logic [PORT_BITS-1:0] floats;
  logic [PORT_BITS/2-1:0] halves;
  wire [31:0] left = elements - (word << LANE_SHIFT);
  always_comb
    for (int lane = 0; lane < FLOATS; lane++) begin
      floats[32*lane+:32] = 32'(lane) >= left ? 0 : wire_bf16 && odd ? sums[PORT_BITS+32*lane+:32] : sums[32*lane+:32];
      halves[16*lane+:16] = bf16(floats[32*lane+:32]);
    end
  assign beat = !out_bf16 ? floats : odd ? {halves, held} : {{PORT_BITS / 2{1'b0}}, halves};
  assign beat_valid = tile_valid && placed && sums_valid && emits;

  always_ff @(posedge clk) begin
    if (row_valid && row_ready) placed <= 1'b1;
    if (trip) begin
      word <= last ? 0 : word + 1;
      held <= halves;
    end
    if (tile_ready) placed <= 1'b0;
    if (!rst_n) {placed, word} <= '0;
  end
endmodule
