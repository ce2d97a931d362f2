// The array of conv_int8 (hls/conv/int8.cpp, multiply_pixel): the sums over INPUTS channels of a word, for each of OUTPUTS
// channels, added up from `first` to `last`. A word a cycle; INPUTS is a power of two, OUTPUTS even.
//
// Two multiplications take one DSP48: weights of two outputs side by side, (w1 << 16) + w0, times their common input. The low
// 16 bits are w0's product; where it is negative it has borrowed one from w1's, which gets it back (AMD WP486).
module mac_array #(
    parameter int OUTPUTS = 16,
    parameter int INPUTS = 16
) (
    input  logic                        clk,
    input  logic                        rst_n,
    input  logic [        8*INPUTS-1:0] x,
    input  logic [8*OUTPUTS*INPUTS-1:0] w,           // output by output
    input  logic                        valid,
    input  logic                        first,
    input  logic                        last,
    output logic [      32*OUTPUTS-1:0] sums,
    output logic                        sums_valid
);
  localparam int LEVELS = $clog2(INPUTS);
  localparam int WIDTH = 17 + LEVELS;  // of a sum over INPUTS products, each of 17 bits at most
  localparam int DELAY = 3 + LEVELS;  // pack, multiply, split, and a level of the tree each

  logic [DELAY-1:0] valids, firsts, lasts;
  always_ff @(posedge clk) begin
    valids <= {valids[DELAY-2:0], valid};
    firsts <= {firsts[DELAY-2:0], first};
    lasts <= {lasts[DELAY-2:0], last};
    sums_valid <= valids[DELAY-1] && lasts[DELAY-1];
    if (!rst_n) {valids, sums_valid} <= '0;
  end

  // Each pair of outputs gets its inputs a cycle late, with their weights.
  logic signed [7:0] inputs[0:INPUTS-1];
  always_ff @(posedge clk) for (int c = 0; c < INPUTS; c++) inputs[c] <= x[8*c+:8];

  generate
    for (genvar k = 0; k < OUTPUTS; k += 2) begin : pair
      // Heaps: node i is the sum of nodes 2i and 2i + 1, leaves are the products.
      logic signed [WIDTH-1:0] even[1:2*INPUTS-1], odd[1:2*INPUTS-1];
      for (genvar c = 0; c < INPUTS; c++) begin : product
        wire signed [7:0] w0 = w[8*(k*INPUTS+c)+:8], w1 = w[8*((k+1)*INPUTS+c)+:8];
        logic signed [24:0] both;
        (* use_dsp = "yes" *) logic signed [32:0] result;
        always_ff @(posedge clk) begin
          both <= (25'(w1) <<< 16) + 25'(w0);
          result <= both * inputs[c];
          even[INPUTS+c] <= WIDTH'($signed(result[15:0]));
          odd[INPUTS+c] <= WIDTH'($signed(result[32:16])) + WIDTH'($signed({1'b0, result[15]}));
        end
      end
      always_ff @(posedge clk)
        for (int i = 1; i < INPUTS; i++) begin
          even[i] <= even[2*i] + even[2*i+1];
          odd[i] <= odd[2*i] + odd[2*i+1];
        end
      always_ff @(posedge clk)
        if (valids[DELAY-1]) begin
          sums[32*k+:32] <= (firsts[DELAY-1] ? 32'd0 : sums[32*k+:32]) + 32'(even[1]);
          sums[32*(k+1)+:32] <= (firsts[DELAY-1] ? 32'd0 : sums[32*(k+1)+:32]) + 32'(odd[1]);
        end
    end
  endgenerate
endmodule
