"""Hostile versions of input files, drawn from one random.Random: a seed reproduces the file."""

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

Mutator = Callable[[random.Random, bytes], bytes]

_VALUES: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 3, 2**31, 2**63, -(2**63), 2**70, 0.5, 1e308, float("nan"),
    float("inf"), "", "x", "\x1b]0;title\x07", "../../etc/passwd", "é\ud800", "int8",
    [], [[]], [None], [1, 2, 3], ["a", "b"], {}, {"a": 1}, {"": None}, [{}], "x" * 5000,
)  # fmt: skip


def of_json(random: random.Random, data: bytes) -> bytes:
    """Replace, remove or double up to three values of a JSON text; rarely break the text itself."""
    if random.random() < 0.1:
        return of_text(random, data)
    value = json.loads(data)
    for _ in range(random.randint(1, 3)):
        value = _changed(random, value)
    return json.dumps(value).encode()


def of_text(random: random.Random, data: bytes) -> bytes:
    """A text cut, with bytes that are no UTF-8, or nested without an end."""
    cut = random.randrange(len(data) + 1)
    return random.choice((
        data[:cut], data[:cut] + b"\xff\xfe" + data[cut:], b"[" * 20_000, b'{"a":' * 20_000,
        b"", b"\0" * 64, data + data, b"null", b"[]", b'"x"',
        b"a = " + b"[" * 20_000, b"a" + b".a" * 20_000 + b" = 1",
    ))  # fmt: skip


def of_toml(random: random.Random, data: bytes) -> bytes:
    """Replace values of a TOML text, remove, double or add lines; rarely break the text itself."""
    if random.random() < 0.3:
        return of_text(random, data)
    lines = data.decode().splitlines()
    for _ in range(random.randint(1, 3)):
        at = random.randrange(len(lines))
        key, equals, _ = lines[at].partition(" = ")
        value = f"{key}{equals}{random.choice(_TOML)}" if equals else lines[at]
        lines[at : at + 1] = random.choice(
            (
                [],
                [lines[at]] * 2,
                [value],
                [value],
                [value],
                [random.choice(_TOML_LINES), lines[at]],
            )
        )
        lines = lines or [""]
    return "\n".join(lines).encode()


_TOML = (
    "0", "-1", "9223372036854775808", "1e400", "nan", "inf", "true", '""', '"x"', '"openai"',
    '"gguf"', '"\\u001b]0;t\\u0007"', '"{text}{input}{nothing}"', "[]", "[[]]", "[1, 2]",
    '["a", 1]', "{}", "{a = 1}", "1979-05-27", "9999-99-99", "'\\'", "[" * 3000,
    '"' + "x" * 3000 + '"',
)  # fmt: skip
_TOML_LINES = (
    "[[adapters]]",
    "[base]",
    "[format.parts]",
    'unknown = "x"',
    'engine = "openai"',
    "stop_ids = [-1]",
    "aliases = [{}]",
    "[context]",
    "\x00",
    "a.b.c = 1",
)


def of_bytes(random: random.Random, data: bytes) -> bytes:
    """A few bytes flipped, cut out, doubled or set to the ends of their range."""
    changed = bytearray(data)
    for _ in range(random.randint(1, 4)):
        # Headers decide most, and are at the front.
        at = random.randrange(min(len(changed), random.choice((16, 256, 4096, len(changed)))) or 1)
        size = random.choice((1, 1, 4, 8, 64))
        changed[at : at + size] = random.choice((
            random.randbytes(size), b"", b"\xff" * size, b"\0" * size,
            bytes(changed[at : at + size]) * 2,
        ))  # fmt: skip
    return bytes(changed)


def of_gguf(random: random.Random, data: bytes) -> bytes:
    """A number behind one of the keys of a GGUF file changed, or bytes anywhere."""
    keys = [
        b"general.architecture",
        b"llama.",
        b"tokenizer.ggml.",
        b"blk.",
        b"token_embd",
        b"output_norm",
    ]
    places = [at for key in keys for at in _places(data, key)]
    if random.random() < 0.3 or not places:
        return of_bytes(random, data)
    at = random.choice(places) + random.randint(-8, 48)
    number = random.choice(
        (
            b"\0" * 4,
            b"\xff" * 4,
            b"\1\0\0\0",
            b"\0\0\0\x80",
            random.randbytes(4),
            b"\xff" * 8,
            b"\0" * 8,
        )
    )
    return data[: max(0, at)] + number + data[max(0, at) + len(number) :]


def _places(data: bytes, key: bytes) -> list[int]:
    return [match.end() for match in re.finditer(re.escape(key), data)]


def of_safetensors(random: random.Random, data: bytes) -> bytes:
    """The header's JSON changed, its length, or bytes anywhere."""
    if random.random() < 0.3:
        return of_bytes(random, data)
    length = int.from_bytes(data[:8], "little")
    table = json.loads(data[8 : 8 + length])
    for _ in range(random.randint(1, 2)):
        names = list(table) if isinstance(table, dict) else []
        name = random.choice(names) if names else "__metadata__"
        if (
            name != "__metadata__"
            and isinstance(table[name], dict)
            and {"shape", "data_offsets"} <= set(table[name])
            and random.random() < 0.4
        ):
            table[name] = random.choice((_moved, _shaped, _typed))(random, table[name])
        else:
            table = _changed(random, table)
    text = json.dumps(table).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def _moved(random: random.Random, fact: Any) -> Any:
    begin, end = fact["data_offsets"]
    return fact | {
        "data_offsets": random.choice(
            ([begin + 1, end + 1], [begin, end + 64], [0, end - begin], [end, begin], [begin])
        )
    }


def _shaped(random: random.Random, fact: Any) -> Any:
    shape = fact["shape"]
    return fact | {
        "shape": random.choice(
            (
                shape[::-1],
                [*shape, 1],
                shape[1:],
                [2 * n for n in shape],
                [0],
                [-1, *shape],
                [2**62, 2],
            )
        )
    }


def _typed(random: random.Random, fact: Any) -> Any:
    return fact | {
        "dtype": random.choice(
            ("F64", "F16", "BF16", "I8", "U8", "BOOL", "F8_E4M3", "F4", "C64", "")
        )
    }


def _changed(random: random.Random, value: Any) -> Any:
    """A value with something in it replaced, removed or doubled."""
    if isinstance(value, dict) and value and random.random() < 0.9:
        key = random.choice(list(value))
        if random.random() < 0.15:
            return {name: inner for name, inner in value.items() if name != key}
        return value | {key: _changed(random, value[key])}
    if isinstance(value, list) and value and random.random() < 0.8:
        at = random.randrange(len(value))
        new = random.choice(
            (
                [],
                [value[at], value[at]],
                [_changed(random, value[at])],
                [_changed(random, value[at])],
            )
        )
        return [*value[:at], *new, *value[at + 1 :]]
    return random.choice(_VALUES)


def rewrite(path: Path, mutator: Mutator, random: random.Random) -> None:
    path.write_bytes(mutator(random, path.read_bytes()))
