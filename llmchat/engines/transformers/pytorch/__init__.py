"""The forward pass in plain torch: the reference of the compiled one, and what runs on GPUs."""
