"""The Python API: chats, answers, tools and batches for programs. `llmchat` has its names."""
