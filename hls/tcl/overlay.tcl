# The overlay of a Zynq board: processing system, kernels, memory and control, built into overlay.bit with its overlay.hwh.
#   vivado -mode batch -source overlay.tcl -tclargs BOARD_TCL IP_FOLDER BUILD_FOLDER KERNEL...
# A kernel's bundle goes through a SmartConnect to the port of its number, modulo the number of ports; control registers lie
# where registers.json says. Zynq-7000 and Zynq UltraScale+ differ in the processing system alone (procs ps_*).

# The newest version of an IP that this Vivado has.
proc newest {name} {
    set found [lsort -dictionary [get_property VLNV [get_ipdefs "xilinx.com:ip:$name:*"]]]
    if {[llength $found] == 0} { error "this Vivado has no IP $name: install the support of the board's device family" }
    return [lindex $found end]
}

proc cell {name ip args} {
    set made [create_bd_cell -type ip -vlnv [newest $ip] $name]
    if {[llength $args]} { set_property -dict $args $made }
    return $made
}

proc pins {args} { return [get_bd_pins $args] }

# What differs between families: the clock, its reset, the control port and its address space, the memory ports.
proc ps_zynq7000 {clock_mhz ports} {
    cell ps processing_system7
    apply_bd_automation -rule xilinx.com:bd_rule:processing_system7 \
        -config {make_external "FIXED_IO, DDR" apply_board_preset "1"} [get_bd_cells ps]
    set config [list CONFIG.PCW_USE_M_AXI_GP0 1 CONFIG.PCW_FPGA0_PERIPHERAL_FREQMHZ $clock_mhz]
    for {set i 0} {$i < [llength $ports]} {incr i} {
        lappend config CONFIG.PCW_USE_S_AXI_HP$i 1 CONFIG.PCW_S_AXI_HP${i}_DATA_WIDTH 64
    }
    set_property -dict $config [get_bd_cells ps]
    return {clock FCLK_CLK0 reset FCLK_RESET0_N control M_AXI_GP0 space Data control_clocks M_AXI_GP0_ACLK port_clock %s_ACLK}
}

proc ps_zynquplus {clock_mhz ports} {
    cell ps zynq_ultra_ps_e
    apply_bd_automation -rule xilinx.com:bd_rule:zynq_ultra_ps_e -config {apply_board_preset "1"} [get_bd_cells ps]
    set config [list CONFIG.PSU__USE__M_AXI_GP0 1 CONFIG.PSU__USE__M_AXI_GP1 0 CONFIG.PSU__USE__M_AXI_GP2 0 \
        CONFIG.PSU__CRL_APB__PL0_REF_CTRL__FREQMHZ $clock_mhz]
    # High-performance port i is slave port i + 2 of the processing system.
    for {set i 0} {$i < [llength $ports]} {incr i} {
        set port [expr {$i + 2}]
        lappend config CONFIG.PSU__USE__S_AXI_GP$port 1 CONFIG.PSU__SAXIGP${port}__DATA_WIDTH 128
    }
    set_property -dict $config [get_bd_cells ps]
    return {clock pl_clk0 reset pl_resetn0 control M_AXI_HPM0_FPD space Data control_clocks maxihpm0_fpd_aclk port_clock {}}
}

# S_AXI_HP0_ACLK on Zynq-7000, saxihp0_fpd_aclk on UltraScale+.
proc port_clock {pattern port} {
    if {$pattern ne ""} { return [format $pattern $port] }
    return "[string tolower [string map {S_AXI_ saxi} $port]]_aclk"
}

# A kernel keeps its address, whichever others are there.
proc connect_control {ps kernels all base stride} {
    cell control smartconnect CONFIG.NUM_SI 1 CONFIG.NUM_MI [llength $kernels]
    connect_bd_intf_net [get_bd_intf_pins ps/[dict get $ps control]] [get_bd_intf_pins control/S00_AXI]
    set i 0
    foreach kernel $kernels {
        connect_bd_intf_net [get_bd_intf_pins control/[format M%02d_AXI $i]] [get_bd_intf_pins $kernel/s_axi_control]
        assign_bd_address -offset [format 0x%x [expr {$base + [lsearch -exact $all $kernel] * $stride}]] -range $stride \
            -target_address_space [get_bd_addr_spaces ps/[dict get $ps space]] [get_bd_addr_segs $kernel/s_axi_control/Reg]
        incr i
    }
}

# One SmartConnect a port, for all bundles that share it.
proc connect_memory {ps kernels ports bundles_of} {
    upvar 1 $bundles_of bundles
    set masters [dict create]
    foreach kernel $kernels {
        set i 0
        foreach bundle $bundles($kernel) {
            dict lappend masters [expr {$i % [llength $ports]}] $kernel/m_axi_$bundle
            incr i
        }
    }
    dict for {port attached} $masters {
        cell memory$port smartconnect CONFIG.NUM_SI [llength $attached] CONFIG.NUM_MI 1
        set i 0
        foreach master $attached {
            connect_bd_intf_net [get_bd_intf_pins $master] [get_bd_intf_pins memory$port/[format S%02d_AXI $i]]
            incr i
        }
        set name [lindex $ports $port]
        connect_bd_intf_net [get_bd_intf_pins memory$port/M00_AXI] [get_bd_intf_pins ps/$name]
        connect_bd_net [pins ps/[dict get $ps clock]] [pins ps/[port_clock [dict get $ps port_clock] $name]]
    }
    return [dict keys $masters]
}

proc connect_clocks {ps kernels ports} {
    cell reset proc_sys_reset
    set clock [pins ps/[dict get $ps clock]]
    connect_bd_net [pins ps/[dict get $ps reset]] [pins reset/ext_reset_in]
    connect_bd_net $clock [pins reset/slowest_sync_clk]
    connect_bd_net $clock [pins ps/[dict get $ps control_clocks]]
    foreach kernel $kernels {
        connect_bd_net $clock [pins $kernel/ap_clk]
        connect_bd_net [pins reset/peripheral_aresetn] [pins $kernel/ap_rst_n]
    }
    foreach port [concat control [lmap port $ports {string cat memory $port}]] {
        connect_bd_net $clock [pins $port/aclk]
        connect_bd_net [pins reset/interconnect_aresetn] [pins $port/aresetn]
    }
}

proc implement {build} {
    make_wrapper -files [get_files accelops.bd] -top -import
    launch_runs impl_1 -to_step write_bitstream -jobs 2
    wait_on_run impl_1
    if {[get_property PROGRESS [get_runs impl_1]] ne "100%"} { error "implementation failed: see $build/vivado" }
    open_run impl_1
    report_utilization -file $build/utilization.rpt
    report_timing_summary -file $build/timing.rpt
    file copy -force [glob $build/vivado/*.runs/impl_1/*.bit] $build/overlay.bit
    file copy -force [lindex [glob $build/vivado/*.gen/sources_1/bd/accelops/hw_handoff/accelops.hwh] 0] $build/overlay.hwh
}

proc overlay {board_tcl ip_folder build args} {
    source $board_tcl
    foreach kernel $args {
        if {$kernel ni $accelops_kernels} { error "kernel $kernel: choose from $accelops_kernels" }
    }
    create_project -force overlay $build/vivado -part $accelops_part
    set_property board_part $accelops_board_part [current_project]
    set_property ip_repo_paths $ip_folder [current_project]
    update_ip_catalog
    create_bd_design accelops
    set ps [ps_$accelops_family $accelops_clock_mhz $accelops_ports]
    foreach kernel $args { create_bd_cell -type ip -vlnv xilinx.com:hls:$kernel:1.0 $kernel }
    set used [connect_memory $ps $args $accelops_ports accelops_bundles]
    connect_control $ps $args $accelops_kernels $accelops_control_base $accelops_control_stride
    connect_clocks $ps $args $used
    assign_bd_address
    validate_bd_design
    save_bd_design
    implement $build
}

if {[llength $argv] < 4} { error "usage: overlay.tcl BOARD_TCL IP_FOLDER BUILD_FOLDER KERNEL..." }
overlay {*}$argv
