"""The official JSON-Schema-Test-Suite, whole: each schema is refused, or no invalid value passes.

It comes in the source distribution of jsonschema on PyPI, which the test downloads.
"""

import json
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from support.schema_matcher import SchemaMatcher

from llmchat.errors import UsageError

# A schema without `$schema` is one of the newest draft, so older ones are named.
DRAFTS = {
    "draft2020-12": "https://json-schema.org/draft/2020-12/schema",
    "draft2019-09": "https://json-schema.org/draft/2019-09/schema",
    "draft7": "http://json-schema.org/draft-07/schema#",
    "draft6": "http://json-schema.org/draft-06/schema#",
}
# In these drafts `format` only describes a value unless it is asserted, as llmchat does (the groups
# below optional/format are about that), and `content…` always only describes it.
ANNOTATIONS = ("format", "content", "optional/content")


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("suite")
    name = f"jsonschema=={version('jsonschema')}"
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder)]
    done = subprocess.run([*command, "--no-binary", "jsonschema", name], capture_output=True)
    if done.returncode:
        pytest.skip("the test suite cannot be downloaded")
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as files:
        files.extractall(folder, filter="data")
    return next(folder.glob("*/json/tests"))


def groups(suite: Path, draft: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The name of each file, and its groups."""
    for file in sorted((suite / draft).rglob("*.json")):
        name = str(file.relative_to(suite / draft).with_suffix(""))
        if name not in ANNOTATIONS:
            yield from ((name, group) for group in json.loads(file.read_text("utf-8")))


def judged(group: dict[str, Any], address: str) -> Counter[str]:
    """What became of a group: refused; or enforced, with the valid values that were not accepted
    and the invalid ones that were.
    """
    schema = group["schema"]
    if isinstance(schema, dict):
        schema = {"$schema": address, **schema}
    try:
        matcher = SchemaMatcher(schema)
    except UsageError as error:
        assert error.message
        return Counter(refused=1)
    counts = Counter(enforced=1)
    for test in group["tests"]:
        accepted = matcher.accepts(test["data"])
        counts[f"{'valid' if test['valid'] else 'invalid'} {'in' if accepted else 'out'}"] += 1
    return counts


@pytest.mark.slow
@pytest.mark.parametrize("draft", DRAFTS)
def test_no_invalid_value_of_any_enforced_schema_passes(
    suite: Path, draft: str, capsys: pytest.CaptureFixture[str]
) -> None:
    total, by_file = Counter[str](), dict[str, Counter[str]]()
    for name, group in groups(suite, draft):
        counts = judged(group, DRAFTS[draft])
        by_file.setdefault(name, Counter()).update(counts)
        total += counts
    with capsys.disabled():
        print(f"\n{draft}: {dict(total)}")
        for name, counts in by_file.items():
            print(f"  {name:34} {counts['enforced']:3} enforced {counts['refused']:3} refused")
    wrong = {name: counts for name, counts in by_file.items() if counts["invalid in"]}
    assert not wrong
    assert total["valid in"] > 0.95 * (total["valid in"] + total["valid out"])
    assert total["enforced"] > 150
