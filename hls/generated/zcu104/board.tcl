# Generated from hls/boards/zcu104.json by `python -m accelops.targets.fpga.generate`: never edit it.
set accelops_board {zcu104}
set accelops_part {xczu7ev-ffvc1156-2-e}
set accelops_board_part {xilinx.com:zcu104:part0:1.1}
set accelops_family {zynquplus}
set accelops_platform {}
set accelops_clock_mhz {250}
set accelops_control_base {0xa0000000}
set accelops_control_stride {0x10000}
set accelops_port_bits {128}
set accelops_ports {S_AXI_HP0_FPD S_AXI_HP1_FPD S_AXI_HP2_FPD S_AXI_HP3_FPD}
set accelops_kernels {adam reduce conv_fp32 conv_int8}
set accelops_bundles(adam) {gmem0 gmem1 gmem2 gmem3 gmem4}
set accelops_bundles(reduce) {gmem0 gmem1 gmem2 gmem3 gmem4}
set accelops_bundles(conv_fp32) {gmem0 gmem1 gmem3 gmem2}
set accelops_bundles(conv_int8) {gmem0 gmem1 gmem3 gmem2}
