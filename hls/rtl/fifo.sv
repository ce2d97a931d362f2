// A queue of a power of two of words, in block RAM or LUT RAM; its first word stands at the output, a cycle after it came.
module fifo #(
    parameter int WIDTH = 32,
    parameter int DEPTH = 16
) (
    input  logic             clk,
    input  logic             rst_n,
    input  logic [WIDTH-1:0] in,
    input  logic             in_valid,
    output logic             in_ready,
    output logic [WIDTH-1:0] out,
    output logic             out_valid,
    input  logic             out_ready
);
  localparam int BITS = $clog2(DEPTH);

  logic [WIDTH-1:0] words[0:DEPTH-1];
  logic [BITS:0] head, tail;  // one bit more than an index, so that full is not empty

  wire fetch = head != tail && (!out_valid || out_ready);
  assign in_ready = head != {~tail[BITS], tail[BITS-1:0]};

  always_ff @(posedge clk) begin
    if (in_valid && in_ready) words[head[BITS-1:0]] <= in;
    if (fetch) out <= words[tail[BITS-1:0]];
  end

  always_ff @(posedge clk) begin
    if (in_valid && in_ready) head <= head + 1'b1;
    if (fetch) tail <= tail + 1'b1;
    if (fetch) out_valid <= 1'b1;
    else if (out_ready) out_valid <= 1'b0;
    if (!rst_n) begin
      head <= '0;
      tail <= '0;
      out_valid <= 1'b0;
    end
  end
endmodule
