"""What XLA is handed for torch's own ops, by torch_xla and by torch_tpu: the baseline of every ratio.

One module an op, each with `launches(spec, mesh)`. They follow torch_xla 2.9's lowerings (`_get_xla_tensors_hlo` prints
them), which libtpu compiles to the same estimates as these.
"""
