"""AdamSpec goes to JSON and back and counts its bytes."""

from hypothesis import given
from hypothesis import strategies as st

from accelops.kernels.adam.spec import AdamSpec

specs = st.builds(
    AdamSpec,
    numel=st.integers(0, 10**10),
    tensors=st.integers(0, 5000),
    dtype=st.sampled_from(["float32", "bfloat16", "float16", "float64", "complex64"]),
    state_dtype=st.sampled_from(["float32", "bfloat16", "float64"]),
    amsgrad=st.booleans(),
    master=st.booleans(),
    ema=st.booleans(),
)


@given(specs)
def test_a_spec_survives_json(spec: AdamSpec) -> None:
    assert AdamSpec.from_json(spec.to_json()) == spec


def test_bytes_count_each_tensor_once_read_and_once_written() -> None:
    assert AdamSpec(numel=10).bytes == 280
    assert AdamSpec(numel=10, amsgrad=True, ema=True).bytes == 280 + 80 + 80
    # bf16: gradient read, parameter written; fp32: moments and master both ways.
    assert AdamSpec(numel=10, dtype="bfloat16", master=True).bytes == 20 + 20 + 160 + 80
