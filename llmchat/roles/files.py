"""The files of the user's own roles."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmchat.roles.load import SHIPPED, check_name

# What `llmchat roles edit` shows for a role that does not exist yet.
NEW = '''\
about = ""

# The system text of the chat.
system = ""

# Put around each question; $input is the question, other $names are values.
# Without $input it goes before the question, and alone it is a question by itself.
prompt = """
$input"""

# Only for the first question of a chat.
# once = true

# More questions, asked one after the other when the first is answered.
# turns = ["Make it shorter."]

# model = "smollm2"
# schema = "name, age int"    # as after /schema
# tools = ["calculator"]
# docs = ["notes"]            # indexes, see `llmchat index list`

# [values]
# language = "English"

# [sampling]
# temperature = 0
'''


def own_path(own: Path, name: str) -> Path:
    """The file of one of the user's roles. Raises UsageError for a name that it cannot have."""
    return own / f"{check_name(name)}.toml"


def begun_text(own: Path, name: str) -> str:
    """The text that the editor opens: the user's role, a copy of the built-in one, or a new one."""
    for folder in (own, SHIPPED):
        path = folder / f"{name}.toml"
        if path.is_file():
            return path.read_text("utf-8", errors="replace")
    return NEW


def text_of_table(table: Mapping[str, Any]) -> str:
    """A role as TOML, with multi-line strings where texts have several lines."""
    import tomli_w

    return tomli_w.dumps(dict(table), multiline_strings=True)
