"""llmchat: chat in the terminal with language models on your own machine."""

__version__ = "0.1.0"
