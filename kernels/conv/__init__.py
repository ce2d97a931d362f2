"""Convolution: 1D, 2D, 3D; transposed, strided, dilated, grouped; fprop, dgrad, wgrad; fused bias and activation."""
