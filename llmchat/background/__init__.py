"""The user's own server, as their other commands use it: started, found and talked to over a Unix socket."""
