"""The Adam and AdamW step over a list of parameters in one pass."""
