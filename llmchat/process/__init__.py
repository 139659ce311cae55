"""What the operating system gives a process: its standard streams, its signals, and the programs it starts."""
