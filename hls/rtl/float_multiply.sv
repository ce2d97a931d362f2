// a * b in IEEE 754 binary32, to nearest even, subnormal numbers included; a NaN is the quiet one, 0x7fc00000.
// Four cycles: unpack, multiply, normalise, round; a product begins every cycle.
module float_multiply (
    input  logic        clk,
    input  logic [31:0] a,
    input  logic [31:0] b,
    output logic [31:0] product
);
  wire a_infinite = &a[30:23] && a[22:0] == 0, b_infinite = &b[30:23] && b[22:0] == 0;
  wire a_nan = &a[30:23] && a[22:0] != 0, b_nan = &b[30:23] && b[22:0] != 0;
  wire a_zero = a[30:0] == 0, b_zero = b[30:0] == 0;
  logic nan1, infinite1, sign1;
  logic signed [10:0] exponent1;  // of a product whose highest bit is set
  logic [23:0] a1, b1;
  always_ff @(posedge clk) begin
    nan1 <= a_nan || b_nan || (a_infinite && b_zero) || (b_infinite && a_zero);
    infinite1 <= a_infinite || b_infinite;
    sign1 <= a[31] ^ b[31];
    exponent1 <= $signed({3'd0, a[30:23] == 0 ? 8'd1 : a[30:23]}) + $signed({3'd0, b[30:23] == 0 ? 8'd1 : b[30:23]}) - 11'sd126;
    a1 <= {a[30:23] != 0, a[22:0]};
    b1 <= {b[30:23] != 0, b[22:0]};
  end

  logic nan2, infinite2, sign2;
  logic signed [10:0] exponent2;
  logic [47:0] bits2;
  always_ff @(posedge clk) begin
    {nan2, infinite2, sign2} <= {nan1, infinite1, sign1};
    exponent2 <= exponent1;
    bits2 <= a1 * b1;
  end

  // Normalise: no further than the least exponent allows, and back where the exponent is below it: subnormal then.
  logic [5:0] zeros;
  always_comb begin
    zeros = 6'd48;
    for (int i = 0; i < 48; i++) if (bits2[i]) zeros = 6'd47 - 6'(i);
  end
  wire signed [10:0] room = exponent2 - 11'sd1;
  wire signed [10:0] left = $signed({5'd0, zeros}) < room ? $signed({5'd0, zeros}) : room;
  wire signed [10:0] back = -left;
  wire [47:0] raised = bits2 << left[5:0];
  wire [96:0] lowered = {bits2, 49'd0} >> (back > 11'sd49 ? 6'd49 : back[5:0]);
  logic nan3, infinite3, sign3, sticky3;
  logic signed [10:0] exponent3;
  logic [24:0] bits3;  // significand and guard bit
  always_ff @(posedge clk) begin
    {nan3, infinite3, sign3} <= {nan2, infinite2, sign2};
    exponent3 <= exponent2 - left;
    bits3 <= left < 0 ? lowered[96:72] : raised[47:23];
    sticky3 <= left < 0 ? |lowered[71:0] : |raised[22:0];
  end

  wire up = bits3[0] && (bits3[1] || sticky3);
  wire over = bits3[24] && exponent3 > 11'sd254;
  wire [30:0] magnitude = {bits3[24] ? exponent3[7:0] : 8'd0, bits3[23:1]} + {30'd0, up};
  always_ff @(posedge clk) begin
    if (nan3) product <= 32'h7fc00000;
    else if (infinite3 || over || &magnitude[30:23]) product <= {sign3, 31'h7f800000};
    else product <= {sign3, magnitude};
  end
endmodule
