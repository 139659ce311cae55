"""Architectures without a forward pass of ours run as transformers' own modules."""
