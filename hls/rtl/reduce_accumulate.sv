// Adds a tile's rows up, rank after rank, in fp32, and scales the last sums: a cycle for each beat of each rank. A row that
// is shorter takes ADDER_CYCLES all the same, so that a sum is back in the buffer before the next rank adds to it.
module reduce_accumulate #(
    parameter int PORT_BITS = 64,
    parameter int TILE_BEATS = 512,
    parameter int ADDER_CYCLES = 16
) (
    input  logic                   clk,
    input  logic                   rst_n,
    input  logic [           31:0] ranks,
    input  logic [           31:0] scale,
    input  logic                   wire_bf16,
    input  logic [          127:0] tile,
    input  logic                   tile_valid,
    output logic                   tile_ready,
    input  logic [  PORT_BITS-1:0] beat,
    input  logic                   beat_valid,
    output logic                   beat_ready,
    output logic [2*PORT_BITS-1:0] sums,
    output logic                   sums_valid,
    input  logic                   sums_ready
);
  localparam int FLOATS = PORT_BITS / 32, HALVES = PORT_BITS / 16;
  localparam int LANE_SHIFT = $clog2(FLOATS);
  localparam int INDEX_BITS = $clog2(TILE_BEATS);
  localparam int ADD = 5, MULTIPLY = 4;  // cycles of float_add and of float_multiply
  localparam logic [31:0] NEGATIVE_ZERO = 32'h80000000;  // what can be added without changing any number

  // A trip of the loop over ranks and beats. The last rank's beats wait until their sums have a place to go.
  logic [31:0] rank, index, promised;
  wire [31:0] elements = tile[127:96];
  wire [31:0] row = wire_bf16 ? (elements + HALVES - 1) >> (LANE_SHIFT + 1) : (elements + FLOATS - 1) >> LANE_SHIFT;
  wire first_rank = rank == 0, last_rank = rank + 1 == ranks;
  wire reads = index < row;
  wire row_ends = index + 1 >= row && index + 1 >= ADDER_CYCLES;
  wire trip = tile_valid && (!reads || (beat_valid && (!last_rank || promised != TILE_BEATS)));
  wire take = trip && reads;
  assign beat_ready = take;
  assign tile_ready = trip && row_ends && last_rank;

  always_ff @(posedge clk) begin
    if (trip) index <= row_ends ? 0 : index + 1;
    if (trip && row_ends) rank <= last_rank ? 0 : rank + 1;
    promised <= promised + {31'd0, take && last_rank} - {31'd0, sums_valid && sums_ready};
    if (!rst_n) {rank, index, promised} <= '0;
  end

  // The pipeline: read the partial sums, add, write them back and scale them.
  logic [2*PORT_BITS-1:0] partial[0:TILE_BEATS-1];
  logic [2*PORT_BITS-1:0] read, lanes, sum, scaled;
  logic first;
  logic [ADD:0] adding, adding_last;
  logic [INDEX_BITS-1:0] adding_at[0:ADD];
  logic [MULTIPLY-1:0] scaling;
  always_ff @(posedge clk) begin
    read <= partial[index[INDEX_BITS-1:0]];
    if (adding[ADD]) partial[adding_at[ADD]] <= sum;
  end
  always_ff @(posedge clk) begin
    first <= first_rank;
    for (int lane = 0; lane < HALVES; lane++)
      lanes[32*lane+:32] <= wire_bf16 ? {beat[16*lane+:16], 16'd0} : beat[32*(lane%FLOATS)+:32];
    adding_at[0] <= index[INDEX_BITS-1:0];
    for (int i = 0; i < ADD; i++) adding_at[i+1] <= adding_at[i];
    adding <= {adding[ADD-1:0], take};
    adding_last <= {adding_last[ADD-1:0], take && last_rank};
    scaling <= {scaling[MULTIPLY-2:0], adding_last[ADD]};
    if (!rst_n) {adding, adding_last, scaling} <= '0;
  end

  generate
    for (genvar lane = 0; lane < HALVES; lane++) begin : arithmetic
      float_add add (
          .clk, .a(first ? NEGATIVE_ZERO : read[32*lane+:32]), .b(lanes[32*lane+:32]), .sum(sum[32*lane+:32])
      );
      float_multiply multiply (.clk, .a(sum[32*lane+:32]), .b(scale), .product(scaled[32*lane+:32]));
    end
  endgenerate

  logic always_room;  // by `promised`
  fifo #(.WIDTH(2 * PORT_BITS), .DEPTH(TILE_BEATS)) buffer (
      .clk, .rst_n, .in(scaled), .in_valid(scaling[MULTIPLY-1]), .in_ready(always_room),
      .out(sums), .out_valid(sums_valid), .out_ready(sums_ready)
  );
endmodule
