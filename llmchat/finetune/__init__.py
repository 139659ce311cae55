"""Fine-tuning: data sets and their cleaner, LoRA training, reports."""
