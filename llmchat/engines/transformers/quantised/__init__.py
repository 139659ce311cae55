"""Weights in few bits: what formats store, and the layout that the compiled step reads."""
