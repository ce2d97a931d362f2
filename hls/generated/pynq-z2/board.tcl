# Generated from hls/boards/pynq-z2.json by `python -m accelops.targets.fpga.generate`: never edit it.
set accelops_board {pynq-z2}
set accelops_part {xc7z020clg400-1}
set accelops_board_part {tul.com.tw:pynq-z2:part0:1.0}
set accelops_family {zynq7000}
set accelops_platform {}
set accelops_clock_mhz {100}
set accelops_control_base {0x43c00000}
set accelops_control_stride {0x10000}
set accelops_port_bits {64}
set accelops_ports {S_AXI_HP0 S_AXI_HP1 S_AXI_HP2 S_AXI_HP3}
set accelops_kernels {adam reduce conv_fp32 conv_int8}
set accelops_bundles(adam) {gmem0 gmem1 gmem2 gmem3 gmem4}
set accelops_bundles(reduce) {gmem0 gmem1 gmem2 gmem3 gmem4}
set accelops_bundles(conv_fp32) {gmem0 gmem1 gmem3 gmem2}
set accelops_bundles(conv_int8) {gmem0 gmem1 gmem3 gmem2}
