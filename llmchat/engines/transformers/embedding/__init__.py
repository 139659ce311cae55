"""Runs embedders and cross-encoders: texts in, vectors or scores out.

Texts are read in batches of similar length whose tokens lie one after the other, without padding.
Computes in float32. Loads safetensors and tokenizer.json directly, without transformers.
"""
