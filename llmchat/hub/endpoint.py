"""The Hub's address, the user's token, and valid names: checked before the first request."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from llmchat.errors import NotAuthorised, UsageError
from llmchat.hub.cache import hub_home
from llmchat.output.terminal_text import excerpt
from llmchat.presets.types import Source
from llmchat.process import startup
from llmchat.settings import World

# The rule of huggingface_hub: ASCII, at most 96 characters, neither `--` nor `..`.
_REPO = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9._-]*/)?[A-Za-z0-9_][A-Za-z0-9._-]*")
# What git allows in a name, less what no Hub uses.
_REVISION = re.compile(r"[A-Za-z0-9_][\w./+@=,#-]*", re.ASCII)


def offline(world: World) -> bool:
    return world.env.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def endpoint(world: World) -> str:
    """The Hub's address. Raises UsageError for an invalid one."""
    given = (world.env.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
    try:
        parts = urlsplit(given)
        sound = (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and not parts.query
            and (parts.port or 1) > 0
        )
        sound = (
            sound
            and len(parts.hostname or "") < 254
            and given.isascii()
            and given.isprintable()
            and " " not in given
        )
    except ValueError:
        sound = False
    if not sound:
        named = excerpt(given.rpartition("@")[2])
        raise UsageError(
            f"HF_ENDPOINT is not a valid address: `{named}`",
            "it looks like https://huggingface.co",
        )
    return given


def public_endpoint(world: World) -> str:
    """The Hub's address without a user name or password in it."""
    parts = urlsplit(endpoint(world))
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def checked(source: Source) -> Source:
    """Return a source whose repo and revision a Hub can have; raise UsageError otherwise."""
    repo, revision = source.repo, source.revision
    if (
        not _REPO.fullmatch(repo)
        or len(repo) > 96
        or ".." in repo
        or "--" in repo
        or repo.endswith(".git")
    ):
        raise UsageError(f"`{excerpt(repo)}` is not a valid Hub repo", "a repo is written org/name")
    if revision and (
        not _REVISION.fullmatch(revision)
        or ".." in revision
        or "//" in revision
        or len(revision) > 255
    ):
        raise UsageError(
            f"`{excerpt(revision)}` is not a valid revision",
            "a revision is a branch, a tag or a commit",
        )
    return source


def token(world: World) -> str | bool:
    """HF_TOKEN, or the token that `hf auth login` stored; False sends none.

    Raises NotAuthorised for an invalid token without quoting it.
    """
    path = (
        Path(world.env["HF_TOKEN_PATH"])
        if world.env.get("HF_TOKEN_PATH")
        else hub_home(world) / "token"
    )
    if world.env.get("HF_TOKEN"):
        found = world.env["HF_TOKEN"].strip()
    else:
        found = path.read_text("utf-8", errors="replace").strip() if path.exists() else ""
    if not re.fullmatch(r"[\x21-\x7e]*", found):
        raise NotAuthorised(
            "the Hub token contains invalid characters", f"check HF_TOKEN, or {path}"
        )
    return found or False


def api(world: World) -> Any:
    """The library's client for this world's Hub, with the user's token."""
    quiet()
    from huggingface_hub import HfApi

    return HfApi(endpoint=endpoint(world), token=token(world))


def quiet() -> None:
    """Turn off the library's telemetry and its notes, which would break our progress display."""
    startup.disable_telemetry()
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()
