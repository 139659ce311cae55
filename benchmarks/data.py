#!/usr/bin/env python3
"""Time and memory of `llmchat data` on a set of Alpaca's size; checks that it finds planted flaws.

usage: python benchmarks/data.py [--records N] [--save]
"""

import argparse
import datetime
import functools
import json
import os
import platform
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

ALPACA = 52_002
BOOK = Path(__file__).parent / "data" / "moby_dick.txt"
# One record in so many gets each flaw.
EVERY = 250
LIMIT = 2048
Record = dict[str, str]

_AVOIDED = re.compile(
    r"(?i)images?|graphs?|pictures?|files?|maps?|draw|plot|videos?|audio|music|diagrams?|article"
    r"|summar.*|page|go|continue"
)
_FOREIGN = """die Kinder spielen heute im Garten hinter dem alten Haus und warten auf ihre Mutter
die noch nicht nach Hause gekommen ist weil der Zug wieder einmal zu spät war und niemand wusste
warum das Wetter so schlecht geworden ist"""


@functools.cache
def words() -> list[str]:
    """The words of an English book, as often as they stand there."""
    return [
        word
        for word in re.findall(r"[A-Za-z]+", BOOK.read_text("utf-8"))
        if not _AVOIDED.fullmatch(word)
    ]


def sentence(source: list[str], count: int, chance: random.Random) -> str:
    return " ".join(chance.choices(source, k=count)).capitalize() + "."


PLANTS: dict[str, Callable[[Record, random.Random], Record]] = {
    "empty-output": lambda one, chance: one | {"output": chance.choice(["", " ", "\n\t"])},
    "no-output": lambda one, chance: (
        one
        | {
            "output": chance.choice(
                ["<nooutput>", "N/A", "<No Output>", "nooutput", "[noinput]", "n/a."]
            )
        }
    ),
    "placeholder-input": lambda one, chance: (
        one
        | {"input": chance.choice(["<noinput>", "No input", "<no input>", "noinput", "(No input)"])}
    ),
    "merged-instructions": lambda one, chance: (
        one | {"output": one["output"] + "\n18. Instruction: " + one["instruction"]}
    ),
    "unseen": lambda one, chance: (
        one
        | {
            "instruction": "Summarize what this says. " + one["instruction"],
            "input": f"https://example.com/{chance.random()}",
        }
        if chance.random() < 0.5
        else one | {"input": f"![a whale](http://example.com/{chance.random()}.png)"}
    ),
    "media-word": lambda one, chance: (
        one | {"instruction": "Draw a diagram of it. " + one["instruction"]}
    ),
    "instruction-length": lambda one, chance: (
        one | {"instruction": " ".join(one["instruction"].split()[:3])}
    ),
    "odd-start": lambda one, chance: one | {"instruction": "- " + one["instruction"]},
    "program-asked": lambda one, chance: (
        one | {"instruction": "Write a program for it. " + one["instruction"]}
    ),
    "control-characters": lambda one, chance: (
        one
        | {"output": one["output"][:20] + chance.choice("\x00\x07\x1b\x7f") + one["output"][20:]}
    ),
    "escaped-newline": lambda one, chance: (
        one | {"output": one["output"] + "\\n" + one["output"][::-1]}
    ),
    "echo": lambda one, chance: one | {"output": one["instruction"]},
    "wikipedia-markers": lambda one, chance: (
        one | {"input": f"{one['instruction']}[{chance.randint(1, 99)}] {one['output']}"}
    ),
    "label-text": lambda one, chance: (
        one
        | {
            "output": one["output"]
            + chance.choice(["\n### Response:\n", "<|im_end|>", " [/INST] "])
        }
    ),
    "speaker-label": lambda one, chance: one | {"output": one["output"] + "\nHuman: and then?"},
    "repeated": lambda one, chance: (
        one | {"output": one["output"] + " the ship went down" * chance.randint(6, 30)}
    ),
    "html": lambda one, chance: one | {"output": f'<div class="x">{one["output"]}</div>'},
    "refusal": lambda one, chance: (
        one | {"output": "As an AI language model, I have none. " + one["output"]}
    ),
    "wrong-language": lambda one, chance: {
        "instruction": sentence(_FOREIGN.split(), 12, chance),
        "input": "",
        "output": sentence(_FOREIGN.split(), 30, chance),
    },
    "too-long": lambda one, chance: one | {"output": sentence(words(), 3000, chance)},
}


def planted(count: int, seed: int = 0) -> tuple[list[Record], dict[str, int]]:
    """`count` records in Alpaca's sizes, two in five with an input, and the planted flaws.

    Deterministic: one seed gives one set.
    """
    chance, source = random.Random(seed), words()
    records = []
    for _ in range(count):
        material = sentence(source, chance.randint(5, 25), chance) if chance.random() < 0.4 else ""
        answer = " ".join(
            sentence(source, chance.randint(8, 16), chance)
            for _ in range(1 + int(chance.expovariate(1 / 3)))
        )
        records.append(
            {
                "instruction": sentence(source, chance.randint(6, 16), chance),
                "input": material,
                "output": answer,
            }
        )
    places = chance.sample(range(count), k=count)
    number = max(1, count // EVERY)
    for plant in PLANTS.values():
        for _ in range(number):
            place = places.pop()
            records[place] = plant(records[place], chance)
    # Copies come after the records they copy, which stay without a flaw.
    originals = [place for place in sorted(places) if len(records[place]["output"].split()) >= 40]
    copies = sorted(chance.sample(originals, 2 * number))
    for index, place in enumerate(copies):
        copy = dict(records[place])
        if index % 2:
            said = copy["output"].split()
            said[len(said) // 2] = "Zanzibar"
            copy["output"] = " ".join(said)
        records.append(copy)
    return records[: count + 2 * number], dict.fromkeys(PLANTS, number) | {
        "duplicate": number,
        "near-duplicate": number,
    }


def measure(*arguments: str) -> tuple[float, float, str]:
    """Seconds, peak MB and stdout of `llmchat data …` in a process of its own."""
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "llmchat", "data", *arguments], stdout=out
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - started
        assert process.returncode == 0, arguments
        out.seek(0)
        return seconds, usage.ru_maxrss / 1024, out.read()


def found(report: str) -> dict[str, int]:
    return {one["flaw"]: one["count"] for one in json.loads(report)["flaws"] if one["count"]}


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )
    return f"{model}, {os.cpu_count()} cores"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--records", type=int, default=ALPACA)
    parser.add_argument("--save", action="store_true")
    arguments = parser.parse_args()
    copies = 2 * max(1, arguments.records // (EVERY + 2))
    records, expected = planted(arguments.records - copies)
    runs: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        as_list, as_lines = Path(folder) / "set.json", Path(folder) / "set.jsonl"
        as_list.write_text(json.dumps(records, indent=4), "utf-8")
        as_lines.write_text("".join(json.dumps(one) + "\n" for one in records), "utf-8")
        size = as_list.stat().st_size
        everything = ("--language", "en", "--max-tokens", str(LIMIT), "--json")
        for name, command in {
            "inspect": ("inspect", str(as_list), "--json"),
            "inspect, JSON lines": ("inspect", str(as_lines), "--json"),
            "inspect --language --max-tokens": ("inspect", str(as_list), *everything),
            "clean": ("clean", str(as_list), "-o", f"{folder}/kept.json", "--json"),
            "clean --fix --drop all": (
                "clean",
                str(as_list),
                "-o",
                f"{folder}/all.json",
                "--fix",
                "--drop",
                "all",
                *everything,
            ),
            "convert --to sharegpt": (
                "convert",
                str(as_list),
                "--to",
                "sharegpt",
                "-o",
                f"{folder}/shared.json",
            ),
        }.items():
            seconds, peak, out = measure(*command)
            runs[name] = {"seconds": round(seconds, 2), "peak_mb": round(peak)}
            print(f"{name:34} {seconds:6.2f} s {peak:6.0f} MB")
            if name == "inspect --language --max-tokens":
                counts = found(out)
    wrong = {
        name: (expected.get(name, 0), counts.get(name, 0))
        for name in expected | counts
        if expected.get(name) != counts.get(name)
    }
    verdict = f"differ: {wrong}" if wrong else "are the same"
    print(f"{len(records)} records, {size / 1e6:.1f} MB; planted and found counts {verdict}")
    if arguments.save:
        about = {
            "command": "python benchmarks/data.py --save",
            "machine": machine(),
            "date": datetime.date.today().isoformat(),
            "versions": {name: version(name) for name in ("msgspec", "rensa", "py3langid")}
            | {"python": platform.python_version()},
        }
        result = {
            "records": len(records),
            "bytes": size,
            "runs": runs,
            "planted": expected,
            "found": counts,
        }
        target = Path(__file__).parent / "results" / "data.json"
        target.write_text(json.dumps(about | result, indent=2) + "\n")


if __name__ == "__main__":
    main()
