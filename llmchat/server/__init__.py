"""An OpenAI-compatible HTTP server: continuous batching, models on demand, safe defaults.

Requests take the same path as chats in the terminal, so both get the same prompts and answers.
"""
