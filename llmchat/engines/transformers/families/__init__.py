"""One module per family of architectures: from a config and tensor names to what the executors run."""
