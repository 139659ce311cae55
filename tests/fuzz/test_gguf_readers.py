"""Headers of GGUF files with hostile facts, for every architecture that is read: a config and a
plan, or one line, in little memory.
"""

import random
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from support.checkpoints import save_tiny
from support.gguf_cases import GGUF_CASES, READ_ALONE
from support.gguf_headers import ONLY_READ
from support.tiny_families import CASES
from support.tiny_gguf import f32, write_gguf

from llmchat.engines.transformers.families import plan_of
from llmchat.engines.transformers.gguf_export import Export
from llmchat.errors import IntegrityError, LlmchatError, OutOfResources
from llmchat.gguf_file import GgufHeader, read_header
from llmchat.gguf_file.architectures import ARCHITECTURES
from llmchat.gguf_file.config import config_of
from llmchat.gguf_file.facts import architecture_of
from llmchat.hub.gguf_folder import facts_of_header
from llmchat.models.gguf_summary import summarised

_ROOM = 512 << 20
_NAN, _INFINITE = float("nan"), float("inf")
# Zero and negative numbers, numbers that no machine has memory for, wrong types, nested lists, and
# lists with too few, too many and impossible entries. None takes the fact away.
VALUES: tuple[Any, ...] = (
    None, 0, -1, 4097, 2**31, 2**32 - 1, 2**63 - 1, -(2**63), 1.5, -1e30, _NAN, _INFINITE, "x", "",
    True, [], [0], [1, 2], [[1], [2]], [[[]]], ["x"] * 3, [2**40] * 3, [-1] * 3, [1.5, _NAN, 0],
    [1] * 5000, [0] * 70_000,
)  # fmt: skip
OTHERS = (
    "general.architecture", "general.file_type", "general.type", "tokenizer.ggml.tokens",
    "tokenizer.ggml.token_type", "tokenizer.ggml.eos_token_id", "tokenizer.chat_template",
)  # fmt: skip


@cache
def _cases() -> dict[str, str]:
    """A case of tiny models for each architecture that is written."""
    cases = GGUF_CASES | {"gemma3n": CASES["gemma3n"]}
    return {str(architecture_of(case.config().to_dict())): name for name, case in cases.items()}


def header_of(arch: str, folder: Path) -> GgufHeader:
    """A valid header."""
    if arch in ONLY_READ:
        return GgufHeader({"general.architecture": arch, **ONLY_READ[arch]}, {}, 0)
    if arch in READ_ALONE:
        case, facts = READ_ALONE[arch]
        base = save_tiny(folder / "base", case.config())
        return read_header(write_gguf(base, folder / "a.gguf", f32, arch, **facts))
    case = (CASES | GGUF_CASES)[_cases()[arch]]
    Export(save_tiny(folder / "base", case.config()), (), 1.0, "F32", {}).write(folder / "a.gguf")
    return read_header(folder / "a.gguf")


@contextmanager
def little_memory() -> Iterator[None]:
    """Half a gigabyte more than the process has."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + _ROOM, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def mutations(header: GgufHeader, arch: str) -> list[tuple[str, Any]]:
    names = [name for name in header.facts if name.startswith((f"{arch}.", "xielu."))]
    return [(name, value) for name in (*names, *OTHERS) for value in VALUES]


def knock(header: GgufHeader, name: str, value: Any) -> None:
    """Read the header with another fact."""
    facts = {key: kept for key, kept in header.facts.items() if key != name}
    changed = GgufHeader(facts | ({} if value is None else {name: value}), header.tensors, 0)
    try:
        config = config_of(changed, lambda name: [1.0] * 8)
        if config is not None:
            plan_of(config)
        summarised(changed, 0)
        facts_of_header(changed)
    except OutOfResources as error:
        pytest.fail(f"{name} = {value!r}: {error.message}")
    except LlmchatError as error:
        assert "\n" not in error.message and len(error.message) < 400
    except Exception as error:
        pytest.fail(f"{name} = {value!r}: {error!r}")


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_hostile_facts_are_one_line(arch: str, tmp_path: Path) -> None:
    header = header_of(arch, tmp_path)
    assert config_of(header, lambda name: [1.0] * 8)
    chosen = random.Random(arch).sample(mutations(header, arch), 60)
    chosen += [(f"{arch}.block_count", value) for value in (2**32 - 1, [2**40] * 3)]
    with little_memory():
        for name, value in chosen:
            knock(header, name, value)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_all_hostile_facts_are_one_line(arch: str, tmp_path: Path) -> None:
    header = header_of(arch, tmp_path)
    with little_memory():
        for name, value in mutations(header, arch):
            knock(header, name, value)


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("block_count", 2**32 - 1, "`gemma3.block_count` is 4294967295"),
        ("block_count", [1, 2], r"`gemma3.block_count` is \[1, 2\]"),
        ("attention.key_length", _NAN, "`gemma3.attention.key_length` is nan"),
        ("attention.head_count", [[1], [2]], r"`gemma3.attention.head_count` is \[\[1\], \[2\]\]"),
    ],
)
def test_the_line_names_the_fact(name: str, value: Any, line: str, tmp_path: Path) -> None:
    header = header_of("gemma3", tmp_path)
    facts = header.facts | {f"gemma3.{name}": value}
    with pytest.raises(IntegrityError, match=f"the header of the GGUF file cannot be read: {line}"):
        config_of(GgufHeader(facts, header.tensors, 0))
