"""Reads themes: the user's own from the config folder, then those of llmchat."""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

from msgspec import Struct

from llmchat.errors import UsageError, any_of, did_you_mean
from llmchat.parse_guard import read_toml
from llmchat.ui.themes.style import Colour, parse_colour, parse_style
from llmchat.ui.themes.theme import ROLES, Background, Theme

SHIPPED = Path(str(files("llmchat.ui.themes"))) / "shipped"
# What a theme that names no other one inherits, and what is used until another one is chosen.
DEFAULT = "auto"
_FACTS = ("description", "background", "paper")
_KEYS = (*_FACTS, "inherit", "palette", *ROLES)
_MOST_ANCESTORS = 16
_PAPERS = {"light": "#ffffff", "dark": "#1e1e1e", "any": ""}


class _Merged(Struct):
    """The keys of a theme and of those that it inherits; a style with the file that sets it."""

    facts: dict[str, str]
    palette: dict[str, tuple[str, Path]]
    styles: dict[str, tuple[str, Path]]


def find_theme(name: str, own: Path | None = None) -> Theme:
    """The theme of a name. own: the folder of the user's themes.

    Raises UsageError for an unknown name, which lists the valid ones, and for an invalid file.
    """
    merged = _merged(_path_of(name, own), own, ())
    palette: dict[str, Colour] = {}
    for key, (text, path) in merged.palette.items():
        palette[key] = _in_file(path, f"palette.{key}", lambda text=text: parse_colour(text))
    styles = {
        role: _in_file(path, role, lambda text=text: parse_style(text, palette))
        for role, (text, path) in merged.styles.items()
    }
    facts = merged.facts
    facts["paper"] = facts.get("paper") or _PAPERS[facts["background"]]
    return Theme(name, **facts, **styles)  # type: ignore[arg-type]


def names(own: Path | None = None) -> list[str]:
    """The names of all themes; the default first."""
    return sorted(_files(own), key=lambda name: (name != DEFAULT, name))


def _files(own: Path | None) -> dict[str, Path]:
    """Name → file; the user's own files go before those of llmchat."""
    folders = [folder for folder in (SHIPPED, own) if folder and folder.is_dir()]
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.toml"))}


def _path_of(name: str, own: Path | None, but: Path | None = None) -> Path:
    """The file of a theme. but: the file that inherits, which does not mean itself."""
    known = _files(own)
    path = known.get(name)
    if path is not None and path == but:
        # `dark.toml` of the user may inherit `dark` of llmchat.
        path = _files(None).get(name, path)
    if path is None:
        close = did_you_mean(name, list(known))
        listed = f"the themes are {any_of(names(own)).replace(' or ', ' and ')}"
        raise UsageError(f"there is no theme `{name}`", f"{close} {listed}".strip())
    return path


def _merged(path: Path, own: Path | None, seen: tuple[Path, ...]) -> _Merged:
    if path in seen:
        circle = " → ".join(f"`{one.stem}`" for one in (*seen[seen.index(path) :], path))
        raise UsageError(f"{path}: themes inherit each other in a circle: {circle}")
    if len(seen) > _MOST_ANCESTORS:
        raise UsageError(f"{seen[0]}: the theme has more than {_MOST_ANCESTORS} ancestors")
    table = _read(path)
    parent = table.pop("inherit", None if path == SHIPPED / f"{DEFAULT}.toml" else DEFAULT)
    merged = _Merged({"background": "any"}, {}, {})
    if parent is not None:
        # A theme of llmchat inherits one of llmchat, whatever the user has under that name.
        own = None if path.parent == SHIPPED else own
        above = _in_file(path, "inherit", lambda: _path_of(parent, own, but=path))
        merged = _merged(above, own, (*seen, path))
        merged.facts.pop("description", None)
    palette = table.pop("palette", {})
    if "background" in table:
        # The paper belongs to the background.
        merged.facts.pop("paper", None)
    merged.facts |= {key: table[key] for key in _FACTS if key in table}
    merged.palette |= {key: (text, path) for key, text in palette.items()}
    merged.styles |= {role: (table[role], path) for role in ROLES if role in table}
    return merged


def _read(path: Path) -> dict[str, Any]:
    """The table of a file, with known keys and texts as values. Raises UsageError."""
    if not path.is_file():
        # Reading a pipe or a device might never end.
        raise UsageError(f"{path} is not a regular file")
    table = read_toml(path)
    for key in table:
        if key not in _KEYS:
            hint = did_you_mean(key, _KEYS) or "docs/themes.md lists the keys"
            raise UsageError(f"{path}: there is no key `{key}` in a theme", hint)
    table["palette"] = _texts(path, table.get("palette", {}))
    for key, value in table.items():
        if key != "palette" and not isinstance(value, str | int):
            raise UsageError(f'{path}: `{key}` is not a string such as "bold #86c2ac"')
    found = {key: str(value) for key, value in table.items() if key != "palette"}
    _check_facts(path, found)
    return found | {"palette": table["palette"]}


def _texts(path: Path, palette: Any) -> dict[str, str]:
    if not isinstance(palette, Mapping):
        raise UsageError(f"{path}: `palette` is not a table of colours")
    for name, colour in palette.items():
        if not isinstance(colour, str | int) or not name.isidentifier():
            raise UsageError(f'{path}: `palette.{name}` is not a colour such as "#86c2ac"')
    return {name: str(colour) for name, colour in palette.items()}


def _check_facts(path: Path, found: Mapping[str, str]) -> None:
    backgrounds = get_args(Background)
    background, paper = found.get("background", "any"), found.get("paper", "#000000")
    if background not in backgrounds:
        raise UsageError(f"{path}: `background` must be {any_of(backgrounds)}, not `{background}`")
    if not isinstance(_in_file(path, "paper", lambda: parse_colour(paper)), str):
        raise UsageError(f"{path}: `paper` must be a colour such as #1e1e1e, not `{paper}`")


def _in_file(path: Path, key: str, read: Any) -> Any:
    """What `read` returns; its error names the file and the key."""
    try:
        return read()
    except UsageError as error:
        raise UsageError(f"{path}: `{key}`: {error.message}", error.hint) from error
