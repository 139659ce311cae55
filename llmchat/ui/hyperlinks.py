"""Detect whether the terminal supports OSC 8 hyperlinks; if unknown, answers show the URL."""

from collections.abc import Mapping

_PROGRAMS = ("iTerm.app", "WezTerm", "vscode", "ghostty", "Hyper", "rio", "Tabby", "WarpTerminal")
_VARIABLES = ("KITTY_WINDOW_ID", "WT_SESSION", "KONSOLE_VERSION", "ALACRITTY_WINDOW_ID", "DOMTERM")
_TERMS = ("xterm-kitty", "xterm-ghostty", "alacritty", "foot", "foot-extra", "contour")
# VTE 0.50 was the first to support hyperlinks.
_FIRST_VTE = 5000


def has_hyperlinks(env: Mapping[str, str]) -> bool:
    """FORCE_HYPERLINK decides where it is set; otherwise no, inside tmux and screen.

    They hide which terminal is around them.
    """
    forced = env.get("FORCE_HYPERLINK")
    if forced:
        return forced not in ("0", "false", "no")
    if env.get("TMUX") or env.get("STY") or env.get("TERM", "").startswith(("tmux", "screen")):
        return False
    vte = env.get("VTE_VERSION", "")
    return (
        env.get("TERM_PROGRAM") in _PROGRAMS
        or env.get("TERM") in _TERMS
        or any(env.get(name) for name in _VARIABLES)
        or (vte.isdecimal() and int(vte) >= _FIRST_VTE)
    )
