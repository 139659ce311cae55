"""Start-up of the process, its streams and signals, and the programs that it starts."""
