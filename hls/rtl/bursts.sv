// Cuts a row of beats into AXI4 bursts: at most BURST beats each, none across a boundary of 4 KB (IHI 0022, A3.4.1).
module bursts #(
    parameter int DATA_BITS = 64,
    parameter int BURST = 64
) (
    input  logic        clk,
    input  logic        rst_n,
    input  logic [63:0] row_address,
    input  logic [31:0] row_beats,
    input  logic        row_valid,
    output logic        row_ready,
    output logic [63:0] address,
    output logic [ 8:0] beats,
    output logic        valid,
    input  logic        ready
);
  localparam int SHIFT = $clog2(DATA_BITS / 8);
  localparam int PAGE = 4096 >> SHIFT;

  logic [31:0] left;
  wire [31:0] in_page = PAGE - {20'd0, address[11:0] >> SHIFT};
  wire [31:0] most = in_page < BURST ? in_page : BURST;
  wire [31:0] length = left < most ? left : most;

  assign beats = length[8:0];
  assign valid = left != 0;
  assign row_ready = left == 0 || (ready && left == length);

  always_ff @(posedge clk) begin
    if (valid && ready) begin
      address <= address + ({55'd0, beats} << SHIFT);
      left <= left - length;
    end
    if (row_valid && row_ready) begin
      address <= row_address;
      left <= row_beats;
    end
    if (!rst_n) left <= '0;
  end
endmodule
