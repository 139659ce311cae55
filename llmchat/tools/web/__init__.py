"""The web as tools: search and fetch, guarded against addresses inside the user's network.

`addresses` decides what may be opened, `connection` opens it, `pages` makes text of it, and all of
this runs in a process of its own (`child`, `worker`) that can be stopped at any moment.
"""
