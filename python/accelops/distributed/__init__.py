"""Gradients of many tensors exchanged as few large messages."""

from accelops.distributed.bucket import Bucket, pack, reduce, unpack

__all__ = ["Bucket", "pack", "reduce", "unpack"]
