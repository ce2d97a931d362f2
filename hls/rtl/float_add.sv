// a + b in IEEE 754 binary32, to nearest even, subnormal numbers included; a NaN is the quiet one, 0x7fc00000.
// Five cycles: order by magnitude, align, add, normalise, round; a sum begins every cycle.
module float_add (
    input  logic        clk,
    input  logic [31:0] a,
    input  logic [31:0] b,
    output logic [31:0] sum
);
  // Order: `large` has the greater magnitude.
  wire swap = b[30:0] > a[30:0];
  wire [31:0] more = swap ? b : a, less = swap ? a : b;
  wire a_nan = &a[30:23] && a[22:0] != 0, b_nan = &b[30:23] && b[22:0] != 0;
  logic nan1, infinite1, sign1, minus1;
  logic [7:0] exponent1, distance1;
  logic [23:0] large1, small1;
  always_ff @(posedge clk) begin
    nan1 <= a_nan || b_nan || (&a[30:23] && &b[30:23] && a[31] != b[31]);
    infinite1 <= &more[30:23];
    minus1 <= a[31] != b[31];
    // An exact zero is positive, unless both terms are negative zeros.
    sign1 <= a[30:0] == b[30:0] && a[31] != b[31] ? 1'b0 : more[31];
    exponent1 <= more[30:23] == 0 ? 8'd1 : more[30:23];
    distance1 <= (more[30:23] == 0 ? 8'd1 : more[30:23]) - (less[30:23] == 0 ? 8'd1 : less[30:23]);
    large1 <= {more[30:23] != 0, more[22:0]};
    small1 <= {less[30:23] != 0, less[22:0]};
  end

  // Align: guard, round and sticky bits behind the significand.
  wire [50:0] shifted = {small1, 27'd0} >> (distance1 > 27 ? 8'd27 : distance1);
  logic nan2, infinite2, sign2, minus2;
  logic [7:0] exponent2;
  logic [26:0] large2, small2;
  always_ff @(posedge clk) begin
    {nan2, infinite2, sign2, minus2, exponent2} <= {nan1, infinite1, sign1, minus1, exponent1};
    large2 <= {large1, 3'd0};
    small2 <= {shifted[50:25], |shifted[24:0]};
  end

  // Add.
  logic nan3, infinite3, sign3;
  logic [7:0] exponent3;
  logic [27:0] total3;
  always_ff @(posedge clk) begin
    {nan3, infinite3, sign3, exponent3} <= {nan2, infinite2, sign2, exponent2};
    total3 <= minus2 ? {1'b0, large2} - {1'b0, small2} : {1'b0, large2} + {1'b0, small2};
  end

  // Normalise: no further than the least exponent allows; what is left then is subnormal.
  logic [4:0] zeros;
  always_comb begin
    zeros = 5'd27;
    for (int i = 0; i < 27; i++) if (total3[i]) zeros = 5'd26 - 5'(i);
  end
  wire [7:0] left = {3'd0, zeros} < exponent3 ? {3'd0, zeros} : exponent3 - 8'd1;
  logic nan4, infinite4, sign4;
  logic [7:0] exponent4;
  logic [26:0] total4;
  always_ff @(posedge clk) begin
    {nan4, sign4} <= {nan3, sign3};
    infinite4 <= infinite3;
    if (total3[27]) begin
      total4 <= {total3[27:2], total3[1] | total3[0]};
      exponent4 <= exponent3 + 8'd1;
    end else begin
      total4 <= total3[26:0] << left;
      exponent4 <= exponent3 - left;
    end
  end

  // Round: a carry out of the significand moves into the exponent, and out of the greatest exponent makes infinity.
  wire up = total4[2] && (total4[3] || total4[1:0] != 0);
  wire [30:0] magnitude = {total4[26] ? exponent4 : 8'd0, total4[25:3]} + {30'd0, up};
  always_ff @(posedge clk) begin
    if (nan4) sum <= 32'h7fc00000;
    else if (infinite4 || &magnitude[30:23]) sum <= {sign4, 31'h7f800000};
    else sum <= {sign4, magnitude};
  end
endmodule
