// Reads the buckets' descriptors, cuts the buckets into tiles and deals them in turn to the engines: a cycle for each of a
// bucket's four words, then one for each tile. `tile` is {elements, first beat of the result, beats between ranks, first
// beat}, in the order of the words that describe a bucket.
module reduce_schedule #(
    parameter int ENGINES = 4,
    parameter int PORT_BITS = 64,
    parameter int TILE_BEATS = 512
) (
    input  logic               clk,
    input  logic               rst_n,
    input  logic               start,
    input  logic [       31:0] buckets,
    input  logic               wire_bf16,
    input  logic               out_bf16,
    input  logic [       31:0] word,
    input  logic               word_valid,
    output logic               word_ready,
    output logic [      127:0] tile,
    output logic [ENGINES-1:0] tile_valid,
    input  logic [ENGINES-1:0] tile_ready,
    output logic               idle
);
  localparam int LANES = PORT_BITS / 32;  // elements of a beat in fp32

  logic [31:0] buckets_left, left, flat, stride, out;
  logic [1:0] at;  // which word comes next
  logic [$clog2(ENGINES)-1:0] turn;

  // A tile of bf16 read and fp32 written has twice as many beats out, one of fp32 read and bf16 written half as many.
  wire [31:0] tile_elements = wire_bf16 ? TILE_BEATS * LANES * 2 : TILE_BEATS * LANES;
  wire [31:0] tile_out = wire_bf16 == out_bf16 ? TILE_BEATS : out_bf16 ? TILE_BEATS / 2 : TILE_BEATS * 2;
  wire [31:0] elements = left < tile_elements ? left : tile_elements;
  wire dealt = |(tile_valid & tile_ready);

  assign tile = {elements, out, stride, flat};
  assign tile_valid = ENGINES'(left != 0) << turn;
  assign word_ready = buckets_left != 0 && left == 0;
  assign idle = buckets_left == 0 && left == 0;

  always_ff @(posedge clk) begin
    if (word_valid && word_ready) begin
      at <= at + 2'd1;
      if (at == 0) flat <= word;
      if (at == 1) stride <= word;
      if (at == 2) out <= word;
      if (at == 3) begin
        left <= word;
        buckets_left <= buckets_left - 1;
      end
    end
    if (dealt) begin
      turn <= 32'(turn) == ENGINES - 1 ? '0 : turn + 1'b1;
      left <= left - elements;
      flat <= flat + TILE_BEATS;
      out <= out + tile_out;
    end
    if (start) {buckets_left, at, turn} <= {buckets, 2'd0, {$clog2(ENGINES){1'b0}}};
    if (!rst_n) {buckets_left, left} <= '0;
  end
endmodule
