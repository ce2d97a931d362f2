"""Gradient bucketing: pack, unpack, scale, cast, k-way reduction, error feedback."""
