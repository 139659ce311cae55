"""The user's background server, which other commands start and ask over a Unix socket."""
