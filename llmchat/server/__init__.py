"""An OpenAI-compatible HTTP server over the same way that the terminal goes: continuous batching, models on demand, safe by default."""
