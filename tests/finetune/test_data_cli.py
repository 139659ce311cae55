"""`llmchat data` as whole commands: complete output, exit codes, what is written and what is left
alone.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("rensa")

Run = Callable[..., "subprocess.CompletedProcess[str]"]
SAMPLES = Path(__file__).parent / "samples"

FLAWED = [
    {
        "instruction": "Give three tips for staying healthy.",
        "input": "",
        "output": "1. Eat well.\n2. Exercise.\n3. Sleep.",
    },
    {"instruction": "Name a colour of the sky.", "input": "<noinput>", "output": "<nooutput>"},
    {
        "instruction": "Name another colour of the sky.",
        "input": "No input",
        "output": "Grey, before it rains.",
    },
    {
        "instruction": "Give three tips for staying healthy.",
        "input": "",
        "output": "1. Eat well.\n2. Exercise.\n3. Sleep. ",
    },
    {
        "instruction": "Say what a bell does.",
        "input": "",
        "output": "It goes \u0007.\n### Response: It rings.",
    },
]
INSPECTED = """\
records            5
turns              5
with an input      2
with a system text 0
question characters median 31, p95 36, longest 36
answer characters  median 34, p95 36, longest 36
tokens             median 16, p95 18, longest 18

no-output: 1 — N/A, <nooutput> or <noinput> as a whole answer
  set.json:2: <nooutput>

placeholder-input: 2 — `<noinput>` or `No input` where there is no input
  set.json:2: <noinput>
  set.json:3: No input

control-characters: 1 — characters that no one can see or type
  set.json:5: 'It goes \\x07.\\n### Response: It rings.'

label-text: 1 — a prompt format's label inside a message, such as `### Response:` or `<|im_end|>`
  set.json:5: It goes �. ### Response: It rings.

duplicate: 1 — the same conversation as an earlier record
  set.json:4: as set.json:1
"""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    (tmp_path / "work").mkdir()
    (tmp_path / "work/set.json").write_text(json.dumps(FLAWED), "utf-8")
    env = {
        "HOME": str(tmp_path),
        "PATH": os.environ["PATH"],
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }

    def run(*arguments: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "llmchat", "data", *arguments]
        return subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            text=True,
            env=env,
            cwd=tmp_path / "work",
            timeout=120,
        )

    return run


def test_inspect_says_what_is_there_and_changes_nothing(run: Run, tmp_path: Path) -> None:
    done = run("inspect", "set.json")
    assert (done.returncode, done.stderr) == (0, "") and done.stdout == INSPECTED
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["set.json"]
    report = json.loads(run("inspect", "set.json", "--json", "--examples", "1").stdout)
    counts = {one["flaw"]: one["count"] for one in report["flaws"] if one["count"]}
    assert counts == {
        "no-output": 1,
        "placeholder-input": 2,
        "control-characters": 1,
        "label-text": 1,
        "duplicate": 1,
    }
    assert report["records"] == 5 and all(len(one["examples"]) <= 1 for one in report["flaws"])


def test_inspect_of_flawless_records_from_stdin(run: Run) -> None:
    done = run("inspect", "-", stdin=(SAMPLES / "dolly.jsonl").read_text("utf-8"))
    assert done.returncode == 0 and done.stdout.startswith("records            2\n")
    assert done.stdout.endswith(
        "wikipedia-markers: 1 — footnote marks such as [1] in the input\n"
        "  stdin:1: …2000 as Virgin Blue.[3]\n"
    )
    line = '{"instruction": "Name a ship of that book.", "output": "The Pequod."}'
    assert run("inspect", "-", stdin=line).stdout.endswith("\nno flaws found\n")


def test_clean_without_an_output_only_says_what_it_would_do(run: Run, tmp_path: Path) -> None:
    done = run("clean", "set.json")
    assert done.returncode == 0 and "label-text: 1, 1 dropped — " in done.stdout
    assert done.stderr == "2 of 5 records kept, 3 removed; --output FILE writes them\n"
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["set.json"]


def test_clean_writes_what_it_kept_and_what_it_removed(run: Run, tmp_path: Path) -> None:
    folder, before = tmp_path / "work", (tmp_path / "work/set.json").read_bytes()
    done = run("clean", "set.json", "-o", "kept.json", "--fix", "--keep", "label-text")
    assert done.stderr == "3 of 5 records kept: kept.json\n2 removed: kept.removed.jsonl\n"
    kept = json.loads((folder / "kept.json").read_text("utf-8"))
    assert kept == [
        FLAWED[0],
        FLAWED[2] | {"input": ""},
        FLAWED[4] | {"output": "It goes .\n### Response: It rings."},
    ]
    removed = [
        json.loads(line) for line in (folder / "kept.removed.jsonl").read_text("utf-8").splitlines()
    ]
    assert [(one["place"], one["reasons"]) for one in removed] == [
        ("set.json:2", {"no-output": "<nooutput>"}),
        ("set.json:4", {"duplicate": "as set.json:1"}),
    ]
    assert removed[0]["record"]["messages"][0] == {
        "role": "user",
        "content": FLAWED[1]["instruction"],
        "input": "<noinput>",
    }
    assert (folder / "set.json").read_bytes() == before
    again = run("clean", "set.json", "-o", "kept.json")
    assert (
        again.returncode == 2
        and again.stderr == "error: kept.json exists\nhint: --force replaces it\n"
    )
    assert run("clean", "set.json", "-o", "kept.json", "--force").returncode == 0


def test_what_is_cleaned_is_clean_and_chats_keep_their_form(run: Run, tmp_path: Path) -> None:
    assert run("clean", str(SAMPLES / "sharegpt.json"), "-o", "kept.jsonl", "--fix").returncode == 0
    lines = [
        json.loads(line) for line in (tmp_path / "work/kept.jsonl").read_text("utf-8").splitlines()
    ]
    assert [[turn["from"] for turn in line["conversations"]] for line in lines] == [
        ["human", "gpt"] * 2,
        ["human", "gpt"],
    ]
    assert run("clean", "kept.jsonl").stderr.startswith("2 of 2 records kept, 0 removed")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (
            ["clean", "set.json", "-o", "set.json", "--force"],
            "set.json is read from\nhint: an input is never overwritten; name another file",
        ),
        (
            ["clean", ".", "-o", "new.json", "--force"],
            "new.json is read from\nhint: an input is never overwritten; name another file",
        ),
        (["clean", "set.json=2", "-o", "set.json", "--force"], "set.json is read from"),
        (["clean", "set.json", "-o", "no/folder.json"], "there is no folder no"),
        (["clean", "set.json", "--removed", "x.jsonl"], "--removed needs --output"),
        (
            ["clean", "set.json", "-o", "x.jsonl", "--removed", "x.jsonl"],
            "--output and --removed are the same file",
        ),
        (["clean", "set.json", "--drop", "emtpy"], "unknown flaw `emtpy`"),
        (
            ["clean", "set.json", "--to", "alpacca"],
            "data cannot be written as `alpacca`\nhint: did you mean `alpaca`?",
        ),
        (["inspect", "set.json", "--language", "english"], "unknown language code `english`"),
        (["inspect", "nothing.json"], "there is no file or folder nothing.json"),
        (
            [
                "convert",
                str(SAMPLES / "messages.jsonl"),
                str(SAMPLES / "sharegpt.json"),
                "--to",
                "alpaca",
                "-o",
                "x.json",
            ],
            f"{SAMPLES / 'sharegpt.json'}:1: Alpaca holds one question and one answer; "
            "this is 4 messages\nhint: `--to messages` holds them all",
        ),
        (
            ["convert", str(SAMPLES / "text.txt"), "-f", "text", "--to", "messages"],
            f"{SAMPLES / 'text.txt'}:1: a plain text cannot be written as a conversation",
        ),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_mistakes_are_a_line_and_leave_nothing(
    arguments: list[str], error: str, run: Run, tmp_path: Path
) -> None:
    done = run(*arguments)
    assert done.returncode == 2 and done.stderr.startswith(f"error: {error}"), done.stderr
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["set.json"]
    assert json.loads((tmp_path / "work/set.json").read_text("utf-8")) == FLAWED


def test_bad_data_half_way_leaves_no_half_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "work/bad.jsonl").write_text(
        json.dumps(FLAWED[0]) + '\n{"instruction": 1, "output": ""}\n'
    )
    for command in (["clean"], ["convert", "--to", "messages"]):
        done = run(*command, "bad.jsonl", "-o", "out.json")
        assert (done.returncode, done.stderr) == (
            2,
            "error: bad.jsonl:2: expected `str`, got `int` - at `$.instruction`\n",
        )
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == ["bad.jsonl", "set.json"]


CONVERTED = {
    "messages": {
        "messages": [
            {
                "role": "user",
                "content": "Identify the odd one out.",
                "input": "Twitter, Instagram, Telegram",
            },
            {"role": "assistant", "content": "Telegram"},
        ]
    },
    "sharegpt": {
        "conversations": [
            {"from": "human", "value": "Twitter, Instagram, Telegram\n\nIdentify the odd one out."},
            {"from": "gpt", "value": "Telegram"},
        ]
    },
    "alpaca": {
        "instruction": "Identify the odd one out.",
        "input": "Twitter, Instagram, Telegram",
        "output": "Telegram",
    },
}


@pytest.mark.parametrize("to", CONVERTED)
def test_convert(to: str, run: Run, tmp_path: Path) -> None:
    done = run("convert", str(SAMPLES / "alpaca.json"), "--to", to)
    assert (
        done.returncode == 0
        and json.loads(done.stdout.splitlines()[1]) == CONVERTED[to]
        and len(done.stdout.splitlines()) == 3
    )
    assert (
        run("convert", str(SAMPLES / "alpaca.json"), "--to", to, "-o", "out.json").stderr
        == "3 records: out.json\n"
    )
    assert json.loads((tmp_path / "work/out.json").read_text("utf-8"))[1] == CONVERTED[to]
    back = run("convert", "out.json", "--to", "alpaca").stdout
    assert (
        to == "sharegpt"
        or back == run("convert", str(SAMPLES / "alpaca.json"), "--to", "alpaca").stdout
    )


def test_convert_joins_inputs_and_takes_a_mixture(run: Run) -> None:
    done = run(
        "convert",
        f"{SAMPLES / 'alpaca.json'}=3",
        f"{SAMPLES / 'dolly.jsonl'}=1",
        "--to",
        "messages",
        "--join-input",
    )
    rows = [json.loads(line)["messages"] for line in done.stdout.splitlines()]
    assert len(rows) == 4 and all("input" not in message for row in rows for message in row)


def test_convert_writes_a_text_and_an_empty_history_writes_nothing(run: Run) -> None:
    done = run("convert", str(SAMPLES / "text.txt"), "-f", "text", "--to", "text")
    assert [json.loads(line)["text"] for line in done.stdout.splitlines()][
        1
    ] == "The second document."
    assert run("convert", "sessions:", "--to", "messages").stdout == ""
