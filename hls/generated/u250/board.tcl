# Generated from hls/boards/u250.json by `python -m accelops.targets.fpga.generate`: never edit it.
set accelops_board {u250}
set accelops_part {xcu250-figd2104-2L-e}
set accelops_board_part {}
set accelops_family {alveo}
set accelops_platform {xilinx_u250_gen3x16_xdma_4_1_202210_1}
set accelops_clock_mhz {300}
set accelops_control_base {}
set accelops_control_stride {0x10000}
set accelops_port_bits {512}
set accelops_ports {DDR[0] DDR[1] DDR[2] DDR[3]}
set accelops_kernels {adam reduce conv_fp32 conv_int8}
set accelops_bundles(adam) {gmem0 gmem1 gmem2 gmem3 gmem4}
set accelops_bundles(reduce) {gmem0 gmem1 gmem2 gmem3 gmem4}
set accelops_bundles(conv_fp32) {gmem0 gmem1 gmem3 gmem2}
set accelops_bundles(conv_int8) {gmem0 gmem1 gmem3 gmem2}
