"""accelops: convolution, Adam and all-reduce bucketing, fast on whatever hardware is there, behind PyTorch's own interface."""

from accelops.dispatch.explain import explain
from accelops.dispatch.reroute import disable, enable, enabled
from accelops.dispatch.select import use
from accelops.dispatch.tune import tune
from accelops.targets import TargetUnavailable
from accelops.targets.cpu.memory import keep_memory

__all__ = ["TargetUnavailable", "disable", "enable", "enabled", "explain", "keep_memory", "tune", "use"]
