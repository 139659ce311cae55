"""Reads the roles of other programs: aichat's roles and macros, and the templates of simonw/llm.

What llmchat has no place for is left out, and a note names it.
"""

from collections.abc import Iterator
from pathlib import Path

from llmchat.errors import UsageError
from llmchat.parse_guard import reason
from llmchat.process.streams import MOST_ASKED, read_file
from llmchat.roles.importing import aichat, llm_templates
from llmchat.roles.importing.found import Found, yaml_of
from llmchat.settings import World

__all__ = ["Found", "found_in", "usual_places"]

_ENDINGS = (".md", ".yaml", ".yml")


def found_in(path: Path) -> Iterator[Found | UsageError]:
    """The roles in a file, or in the files of a folder; an error for each file that has none."""
    if path.is_dir():
        for one in sorted(path.iterdir()):
            if one.suffix in _ENDINGS:
                yield from found_in(one)
        return
    try:
        yield from _roles_in(path)
    except UsageError as error:
        yield error


def usual_places(world: World) -> list[Path]:
    """Where aichat and llm keep their roles and templates on this machine, as far as they exist."""
    of_aichat = Path(world.env.get("AICHAT_CONFIG_DIR") or world.config_home / "aichat")
    of_llm = Path(world.env.get("LLM_USER_PATH") or world.config_home / "io.datasette.llm")
    places = [
        of_aichat / "roles", of_aichat / "roles.yaml", of_aichat / "macros", of_llm / "templates",
    ]  # fmt: skip
    return [place for place in places if place.exists()]


def _roles_in(path: Path) -> list[Found]:
    text = _read(path)
    if path.suffix == ".md":
        return [aichat.of_markdown(path.stem, text, path)]
    value = yaml_of(text, path)
    if isinstance(value, list):
        return aichat.of_list(value, path)
    if isinstance(value, dict) and "steps" in value:
        return [aichat.of_macro(path.stem, value, path)]
    if isinstance(value, dict | str):
        return [llm_templates.of_template(path.stem, value, path)]
    raise UsageError(
        f"{path} contains no role of aichat and no template of llm",
        "roles are NAME.md files that begin with `---`, or roles.yaml; templates are NAME.yaml",
    )


def _read(path: Path) -> str:
    try:
        return read_file(path, str(path), MOST_ASKED)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {reason(error)}") from error
