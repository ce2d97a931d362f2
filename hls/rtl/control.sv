// The registers of a kernel as Vitis HLS lays them out (UG1399, "S_AXILITE Control Register Map"): control at 0x00, GIER,
// IER, ISR, arguments from 0x10. Bit i of ARGUMENTS says that word i from there is an argument; the others read as zero,
// but for VERSION and CONFIG_HASH.
module control #(
    parameter int WORDS = 32,
    parameter logic [WORDS-1:0] ARGUMENTS = '1,
    parameter int VERSION_WORD = 0,
    parameter logic [31:0] VERSION = 0,
    parameter logic [31:0] CONFIG_HASH = 0
) (
    input  logic                clk,
    input  logic                rst_n,
    input  logic [        11:0] awaddr,
    input  logic                awvalid,
    output logic                awready,
    input  logic [        31:0] wdata,
    input  logic [         3:0] wstrb,
    input  logic                wvalid,
    output logic                wready,
    output logic                bvalid,
    input  logic                bready,
    input  logic [        11:0] araddr,
    input  logic                arvalid,
    output logic                arready,
    output logic [        31:0] rdata,
    output logic                rvalid,
    input  logic                rready,
    output logic                interrupt,
    output logic [32*WORDS-1:0] arguments,
    output logic                start,      // for one cycle; the arguments stand until `finished`
    input  logic                finished    // for one cycle
);
  localparam logic [9:0] CTRL = 0, GIER = 1, IER = 2, ISR = 3, FIRST = 4;

  logic requested, running, done, ready, again, interrupts;
  logic [1:0] enabled, raised;  // of done and of ready

  assign awready = awvalid && wvalid && !bvalid;
  assign wready = awready;
  assign arready = !rvalid;
  assign interrupt = interrupts && raised != 0;
  assign start = requested && !running;

  wire [9:0] at = awaddr[11:2], from = araddr[11:2];
  wire asked = arvalid && arready;
  wire [31:0] mask = {{8{wstrb[3]}}, {8{wstrb[2]}}, {8{wstrb[1]}}, {8{wstrb[0]}}};

  always_ff @(posedge clk) begin
    if (awready) begin
      for (int i = 0; i < WORDS; i++)
        if (ARGUMENTS[i] && at == FIRST + 10'(i))
          arguments[32*i+:32] <= (wdata & mask) | (arguments[32*i+:32] & ~mask);
    end
    if (!rst_n) arguments <= '0;
  end

  always_ff @(posedge clk) begin
    if (bready) bvalid <= 1'b0;
    if (rready) rvalid <= 1'b0;
    if (awready) bvalid <= 1'b1;
    if (asked) rvalid <= 1'b1;

    // Done and ready are cleared by reading them, a kernel that ends at the same time sets them all the same.
    if (asked && from == CTRL) {done, ready} <= '0;
    if (awready && wstrb[0]) begin
      if (at == CTRL) {requested, again} <= {requested || wdata[0], wdata[7]};
      if (at == GIER) interrupts <= wdata[0];
      if (at == IER) enabled <= wdata[1:0];
      if (at == ISR) raised <= raised ^ wdata[1:0];
    end
    if (start) running <= 1'b1;
    if (finished) begin
      {running, done, ready, requested} <= {3'b011, again};
      raised <= raised | enabled;
    end
    if (!rst_n) {bvalid, rvalid, requested, running, done, ready, again, interrupts, enabled, raised} <= '0;
  end

  always_ff @(posedge clk) begin
    if (asked) begin
      rdata <= '0;
      if (from == CTRL) rdata <= {24'd0, again, 3'd0, ready, !running && !requested, done, requested};
      if (from == GIER) rdata <= {31'd0, interrupts};
      if (from == IER) rdata <= {30'd0, enabled};
      if (from == ISR) rdata <= {30'd0, raised};
      for (int i = 0; i < WORDS; i++) if (ARGUMENTS[i] && from == FIRST + 10'(i)) rdata <= arguments[32*i+:32];
      if (from == FIRST + 10'(VERSION_WORD)) rdata <= VERSION;
      if (from == FIRST + 10'(VERSION_WORD + 1)) rdata <= CONFIG_HASH;
    end
  end
endmodule
