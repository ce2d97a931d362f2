"""The ground truth obeys the contract, and rounds its exact results once."""

import torch

from accelops.kernels.bucket import reference

from .contract import BucketContract


class TestReference(BucketContract):
    implementation = reference
    config = reference.Config()

    def test_a_product_near_a_tie_is_rounded_once(self) -> None:
        # 1.0009765625 * (1 + 2^-30) lies just above the tie between two bf16 numbers; rounded to float first it is the tie.
        tie = torch.tensor([1 + 2.0**-8, 1 + 3 * 2.0**-8])
        assert torch.equal(
            self.pack([tie], torch.bfloat16, 1 + 2.0**-30).float(), torch.tensor([1 + 2.0**-7, 1 + 2.0**-6])
        )
        assert torch.equal(self.pack([tie], torch.bfloat16, 1 - 2.0**-30).float(), torch.tensor([1.0, 1 + 2.0**-7]))

    def test_a_sum_is_exact_before_it_is_rounded(self) -> None:
        flats = [torch.tensor([x]) for x in (1e8, 1.0, -1e8)]
        assert self.reduce(flats, torch.empty(1)).item() == 1.0
