"""Runs checkpoints in the format of transformers: compiled for the CPU, in PyTorch, or with the
modules of transformers itself."""

from llmchat.engines.transformers.engine import TransformersEngine

__all__ = ["TransformersEngine"]
