"""Compile programs for TPUs that are not there, with libtpu's own compiler, and read what it estimates.

`cases` names the problems, `stock` lowers them as torch's own ops are lowered, `process` has a child compile both with a
deadline, `hlo` and `profile` read what comes back, `estimate` makes a time of it, `rows` compares. Everything here is a
compiler estimate, not measured. Only `child` and what it loads import jax.
"""

NOT_MEASURED = "compiler estimate, not measured"
