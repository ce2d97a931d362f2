"""The reference obeys the contract, in fp64 too."""

import torch

from accelops.kernels.adam import reference

from .contract import DTYPES, AdamContract


class TestReference(AdamContract):
    implementation = reference
    dtypes = (*DTYPES, torch.float64)
