"""A layer's integers by plain numpy in 64 bits and, for the requantisation, Python's own integers: as hls/conv/int8.hpp says,
and with nothing of accelops.deploy's arithmetic."""

from __future__ import annotations

import numpy as np

from accelops.deploy.quantise import Quantised


def sums(layer: Quantised, x: np.ndarray) -> np.ndarray:
    own, w = layer.layer, layer.weight.numpy().astype(np.int64)
    n, _, height, width = x.shape
    k, channels, taps_h, taps_w = w.shape
    _, _, p, q = layer.sizes(n, height, width)
    pad_h, pad_w = own.padding
    padded = np.pad(x.astype(np.int64), ((0, 0), (0, 0), (pad_h, pad_h), (pad_w, pad_w)))
    y = np.zeros((n, k, p, q), np.int64)
    features = k // own.groups
    for feature in range(k):
        first = feature // features * channels
        for r in range(taps_h):
            for s in range(taps_w):
                rows = slice(r * own.dilation[0], r * own.dilation[0] + (p - 1) * own.stride[0] + 1, own.stride[0])
                columns = slice(s * own.dilation[1], s * own.dilation[1] + (q - 1) * own.stride[1] + 1, own.stride[1])
                seen = padded[:, first : first + channels, rows, columns]
                y[:, feature] += (seen * w[feature, :, r, s][None, :, None, None]).sum(1)
    return y


def result(layer: Quantised, x: np.ndarray) -> np.ndarray:
    exact = sums(layer, x)
    if layer.raw:
        return exact
    y = np.empty_like(exact)
    for at, total in np.ndenumerate(exact):
        bias, multiplier, shift = (int(c[at[1]]) for c in (layer.bias, layer.multiplier, layer.shift))
        nearest = ((int(total) + bias) * multiplier + 2 ** (30 + shift)) // 2 ** (31 + shift)
        y[at] = max(layer.lowest, min(127, nearest))
    return y
