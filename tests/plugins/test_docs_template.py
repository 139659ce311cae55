"""The template in docs/plugins.md works as it is printed."""

import re
import tomllib
from pathlib import Path

import pytest
from support.plugin_packages import Packages

from llmchat import plugins
from llmchat.plugins.installed import GROUP

PAGE = Path(__file__).parents[2] / "docs/plugins.md"


@pytest.fixture
def template() -> dict[str, str]:
    """The files of the template: name → text."""
    return dict(
        re.findall(r"^`([\w./-]+)`:\n\n```\w+\n(.*?)```", PAGE.read_text("utf-8"), re.M | re.S)
    )


def test_the_page_shows_every_file_of_the_template(template: dict[str, str]) -> None:
    named = re.findall(r"[├└]── (\S+)", PAGE.read_text("utf-8"))
    assert sorted(template) == sorted(named) and len(named) == 4


def test_template_passes_its_own_tests(template: dict[str, str], packages: Packages) -> None:
    project = tomllib.loads(template["pyproject.toml"])["project"]
    entries = [f"{name} = {target}" for name, target in project["entry-points"][GROUP].items()]
    packages.install(project["name"], template["llmchat_org.py"], *entries)
    (packages.folder / "llmchat_org.py").write_text(template["llmchat_org.py"])
    tests: dict[str, object] = {}
    exec(template["test_llmchat_org.py"], tests)
    found = [one for name, one in tests.items() if name.startswith("test_")]
    assert len(found) == 2
    for one in found:
        one()  # type: ignore[operator]


def test_the_page_lists_every_kind() -> None:
    rows = re.findall(r"^\| `(\w+)\.NAME`", PAGE.read_text("utf-8"), re.M)
    assert rows == list(plugins.KINDS)
