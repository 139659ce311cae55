"""Git in llmchat: a command, a slash command, tools and a loader of training data."""
