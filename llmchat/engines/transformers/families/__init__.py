"""One module per family of architectures: what its config.json and its tensors mean."""
