"""Plots for terminals, pages, notebooks and files: curves, and bars with intervals.

`figures` holds what is plotted, `text` draws it with characters, `pictures` lays it out as shapes
that `svg` and `png` write, and `showing` decides where it goes.

The drawing is ours: plotext was measured and left out (docs/log.md#plots-in-the-terminal).
"""
