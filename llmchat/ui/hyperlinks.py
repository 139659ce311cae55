"""Which terminals show OSC 8 hyperlinks. Where that is not known, an answer shows the URL itself."""

from collections.abc import Mapping

_PROGRAMS = ("iTerm.app", "WezTerm", "vscode", "ghostty", "Hyper", "rio", "Tabby", "WarpTerminal")
_VARIABLES = ("KITTY_WINDOW_ID", "WT_SESSION", "KONSOLE_VERSION", "ALACRITTY_WINDOW_ID", "DOMTERM")
_TERMS = ("xterm-kitty", "xterm-ghostty", "alacritty", "foot", "foot-extra", "contour")
_FIRST_VTE = 5000  # VTE 0.50 brought them


def has_hyperlinks(env: Mapping[str, str]) -> bool:
    """FORCE_HYPERLINK decides where it is set. tmux and screen hide what the terminal around them can do."""
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
