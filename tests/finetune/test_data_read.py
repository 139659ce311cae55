"""Every format from its sample, every place records come from, and every way in which data can be
bad.
"""

import gzip
import io
import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.worlds import make_world

from llmchat.conversation import Message
from llmchat.errors import LlmchatError, UsageError
from llmchat.finetune.data import fingerprint, formats, read, rows, split
from llmchat.finetune.data.mixing import mix
from llmchat.finetune.records import Record, checked, disorder, trimmed
from llmchat.settings import World

SAMPLES = Path(__file__).parent / "samples"
MONOPSONY = [("user", "What is a monopsony?", ""), ("assistant", "A market with one buyer.", "")]


def said(record: Record) -> list[tuple[str, str, str]]:
    return [(one.role, one.text, one.input) for one in record.messages]


def sample(name: str) -> str:
    (found,) = SAMPLES.glob(f"{name}.*")
    return str(found)


def write(folder: Path, content: str | bytes, name: str = "set") -> str:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


EXPECTED: dict[str, list[list[tuple[str, str, str]]]] = {
    "alpaca": [
        [
            ("user", "Give three tips for staying healthy.", ""),
            (
                "assistant",
                "1. Eat a balanced diet.\n2. Exercise regularly.\n3. Get enough sleep.",
                "",
            ),
        ],
        [
            ("user", "Identify the odd one out.", "Twitter, Instagram, Telegram"),
            ("assistant", "Telegram", ""),
        ],
        [
            ("user", "给出三个保持健康的提示。", ""),
            ("assistant", "1. 保持均衡的饮食。\n2. 经常锻炼。\n3. 保证充足的睡眠。", ""),
        ],
    ],
    "dolly": [
        [
            (
                "user",
                "When did Virgin Australia start operating?",
                "Virgin Australia commenced services on 31 August 2000 as Virgin Blue.[3]",
            ),
            ("assistant", "On 31 August 2000, as Virgin Blue.", ""),
        ],
        [("user", "Which is a species of fish? Tope or Rope", ""), ("assistant", "Tope", "")],
    ],
    "sharegpt": [
        [
            ("user", "Who are you?", ""),
            ("assistant", "I am a model.", ""),
            ("user", "Have a nice day!", ""),
            ("assistant", "You too!", ""),
        ],
        [("user", "Go on.", ""), ("assistant", "That was all.", "")],
    ],
    "messages": [
        [("system", "Be brief.", ""), ("user", "Name a colour.", ""), ("assistant", "Blue.", "")],
        [("user", "Sum it up.", "A long report."), ("assistant", "It is long.", "")],
    ],
    "oasst": [
        [*MONOPSONY, ("user", "Give an example.", ""), ("assistant", "A mining town.", "")],
        [("user", "¿Qué es un monopsonio?", ""), ("assistant", "Un mercado con un comprador.", "")],
    ],
    "oasst-trees": [MONOPSONY],
    "guanaco": [
        [
            ("user", "What is a monopsony?", ""),
            ("assistant", "A market with one buyer.\n\n### Example\nA mining town.", ""),
            ("user", "Thanks!", ""),
            ("assistant", "You are welcome.", ""),
        ]
    ],
    "sessions": [
        [
            ("system", "Be brief.", ""),
            ("user", "What is in the file?", "a = 1"),
            ("assistant", "An assignment.", ""),
        ]
    ],
    "chatgpt": [[("user", "Hello", ""), ("assistant", "Hi there", "")]],
}


@pytest.mark.parametrize("name", formats.FORMATS)
def test_every_format_reads_its_sample(name: str, world: World) -> None:
    if name == "text":
        texts = [(record.text, record.place) for record in read([sample(name)], "text", world)]
        assert texts == [
            ("Call me Ishmael.\n\nSome years ago I went to sea.", f"{sample(name)}:1"),
            ("The second document.", f"{sample(name)}:6"),
        ]
        return
    by_fields = "auto" if name != "guanaco" else name
    assert [said(record) for record in read([sample(name)], by_fields, world)] == EXPECTED[name]
    assert [said(record) for record in read([sample(name)], name, world)] == EXPECTED[name]


def test_no_object_can_be_of_two_formats() -> None:
    found = [form for form in formats.FORMATS.values() if form.needs]
    for one in found:
        for other in found:
            assert one is other or not (
                one.needs <= other.needs | other.knows and other.needs <= one.needs | one.knows
            )


def test_a_language_of_oasst(world: World) -> None:
    assert [
        said(record)[0][1] for record in read([sample("oasst")], "auto", world, language="es")
    ] == ["¿Qué es un monopsonio?"]


def test_a_rows_order_does_not_change_a_tree(world: World, tmp_path: Path) -> None:
    lines = Path(sample("oasst")).read_text("utf-8").splitlines(keepends=True)
    turned = write(tmp_path, "".join(reversed(lines)))
    assert sorted(map(said, read([turned], "auto", world))) == sorted(EXPECTED["oasst"])


def test_places_are_lines_of_json_lines_and_elements_of_a_list(
    world: World, tmp_path: Path
) -> None:
    one = json.dumps({"instruction": "q", "output": "a"})
    lines, as_list = (
        write(tmp_path, f"\n{one}\n\n{one}\n", "lines"),
        write(tmp_path, f"[\n{one},\n\n{one}]", "list"),
    )
    assert [record.place for record in read([lines, as_list], "auto", world)] == [
        f"{lines}:2",
        f"{lines}:4",
        f"{as_list}:1",
        f"{as_list}:2",
    ]


def test_a_bare_list_of_messages_is_one_chat_as_a_file_and_as_a_line(
    world: World, tmp_path: Path
) -> None:
    chat = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    line = json.dumps(chat)
    for text, count in ((json.dumps(chat, indent=2), 1), (line, 1), (f"{line}\n{line}\n", 2)):
        assert [said(one) for one in read([write(tmp_path, text)], "auto", world)] == [
            [("user", "q", ""), ("assistant", "a", "")]
        ] * count


def test_stdin_gzip_byte_order_mark_and_folder(tmp_path: Path) -> None:
    text = '{"instruction": "q", "output": "a"}\n'
    (record,) = read(["-"], "auto", make_world(tmp_path, stdin=text))
    assert record.place == "stdin:1"
    folder = tmp_path / "set"
    (folder / ".cache").mkdir(parents=True)
    (folder / ".cache/x.jsonl").write_text("not data")
    (folder / "README.md").write_text("# A set")
    (folder / "b.json").write_bytes(b"\xef\xbb\xbf" + text.encode())
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    world = make_world(tmp_path)
    assert [record.place for record in read([str(folder)], "auto", world)] == [
        f"{folder}/a.jsonl.gz:1",
        f"{folder}/b.json:1",
    ]
    assert [record.text for record in read([str(folder)], "text", world)] == ["# A set"]


def test_saved_chats_are_a_source(world: World) -> None:
    from llmchat.history import History
    from llmchat.history.imports import ImportedChat, ImportedMessage

    with History(world.history_file) as history:
        chat = history.import_chat(
            ImportedChat(
                (
                    ImportedMessage(Message("user", "q", "i")),
                    ImportedMessage(Message("assistant", "a")),
                ),
                "One",
            )
        )
        history.import_chat(ImportedChat((ImportedMessage(Message("user", "unanswered")),), "Two"))
    expected = [("user", "q", "i"), ("assistant", "a", "")]
    assert [(said(record), record.place) for record in read(["sessions:"], "auto", world)] == [
        (expected, f"sessions:{chat}")
    ]
    assert [said(record) for record in read(["sessions:One"], "auto", world)] == [expected]


ONE = '{"instruction": "q", "output": "a"}\n'


@pytest.mark.parametrize(
    ("content", "format", "line"),
    [
        ("", "auto", "{name} is empty"),
        (" \n\n", "auto", "{name} is empty"),
        ("[]", "auto", "{name} holds no record"),
        ("Once upon a time", "auto", "{name}:1: not JSON: it begins with 'Once upon a time'"),
        (
            ONE + "{'instruction'}\n",
            "auto",
            "{name}:2: not JSON: JSON is malformed: object keys must be strings (byte 1)",
        ),
        (ONE + '\n{"instruction": "q"', "auto", "{name}:3: not JSON: Input data was truncated"),
        (
            '[\n{"instruction": "q", "output": "a"},\n{"instruction": x}]',
            "auto",
            "{name}:3: not JSON: JSON is malformed: invalid character",
        ),
        (
            '{"instruction": "q",\n"output": "a"',
            "auto",
            "{name}:2: not JSON: Input data was truncated",
        ),
        (ONE + '{"instruction": "q"}', "auto", "{name}:2: object missing required field `output`"),
        (
            ONE + '{"instruction": "q", "output": 3}',
            "auto",
            "{name}:2: expected `str`, got `int` - at `$.output`",
        ),
        (
            ONE + '{"instruction": "q", "output": null}',
            "auto",
            "{name}:2: expected `str`, got `null` - at `$.output`",
        ),
        (ONE + '"text"', "auto", "{name}:2: expected `object`, got `str`"),
        (
            ONE.encode() + b'{"instruction": "\xff", "output": ""}',
            "auto",
            "{name}:2: not JSON: 'utf-8' codec",
        ),
        (
            '{"prompt": "q", "answer": "a"}',
            "auto",
            "{name}:1: no data format has exactly these fields: answer, prompt",
        ),
        (
            '{"instruction": "q", "output": "a", "score": 1}',
            "auto",
            "{name}:1: no data format has exactly these fields",
        ),
        ("[1, 2]", "auto", "{name}:1: expected `object`, got `int`"),
        ("[" * 100_000, "auto", "{name}:1: not JSON: maximum recursion depth"),
        ('{"a": ' * 100_000, "auto", "{name}:1: not JSON: maximum recursion depth"),
        (
            '{"messages": [{"role": "narrator", "content": "x"}]}',
            "auto",
            "{name}:1: unknown role 'narrator'",
        ),
        ('{"messages": [{"role": "user", "content": "x"}]}', "auto", "{name}:1: no answer"),
        ('{"messages": []}', "auto", "{name}:1: no answer"),
        (
            '{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}',
            "auto",
            "{name}:1: a part of a message is `image_url`, not text",
        ),
        (
            '{"conversations": [{"from": "human", "value": "a"}, {"from": "human", "value": "b"}, '
            '{"from": "gpt", "value": "c"}]}',
            "auto",
            "{name}:1: turn 2 is from user, not from assistant",
        ),
        (
            '{"conversations": [{"value": "a"}]}',
            "auto",
            "{name}:1: object missing required field `from` - at `$.conversations[0]`",
        ),
        (
            '{"message_id": "1", "parent_id": "0", "text": "", "role": "prompter"}',
            "auto",
            "{name}:1: its parent 0 is not in the file",
        ),
        ('{"text": "no label"}', "guanaco", "{name}:1: the text does not begin with `### Human:`"),
        (b"fine\n\xff\xfe", "text", "{name}:2: not text in UTF-8"),
        ("\n \n", "text", "{name} is empty"),
        (b"PAR1\x00", "auto", "{name} is a Parquet file"),
        (b"\x1f\x8b\x08garbage", "auto", "{name}:1: cannot be read: "),
        (ONE, "alpca", "unknown data format `alpca`"),
    ],
)
def test_bad_data_is_one_line_with_file_and_record(
    content: str | bytes, format: str, line: str, world: World, tmp_path: Path
) -> None:
    name = write(tmp_path, content)
    with pytest.raises(UsageError) as caught:
        list(read([name], format, world))
    assert (
        caught.value.message.startswith(line.format(name=name)) and "\n" not in caught.value.message
    )


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("missing.json", "there is no file or folder missing.json"),
        ("hub:squad", "`hub:squad` names no data set"),
        ("samples=0", "the weight of samples is 0"),
    ],
)
def test_a_source_that_is_not_there_is_said_at_once(source: str, line: str, world: World) -> None:
    with pytest.raises(UsageError, match=line):
        read([source], "auto", world)


def test_a_huge_line_is_refused_before_it_is_read(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "LINE_LIMIT", 1000)
    monkeypatch.setattr(rows, "LIST_LIMIT", 5000)

    class Counted(io.BytesIO):
        taken = 0

        def readline(self, size: int | None = -1, /) -> bytes:
            line = super().readline(size)
            self.taken += len(line)
            return line

    huge = b'{"instruction": "' + b"x" * 100_000 + b'", "output": ""}\n'
    for before, place in ((b"", "f:1"), (ONE.encode(), "f:2")):
        stream = Counted(before + huge)
        with pytest.raises(UsageError, match=f"^{place}: the line is longer than"):
            list(rows.rows(stream, "f"))
        assert stream.taken <= 1001 + len(before)
    with pytest.raises(UsageError, match="f: one JSON value of more than"):
        list(rows.rows(io.BytesIO(b"[" + huge + b"]"), "f"))
    with pytest.raises(UsageError, match="f:1: the line is longer"):
        list(rows.documents(io.BytesIO(b"x" * 2000), "f"))
    long_list = b"[" + b",".join([ONE.encode().strip()] * 100) + b"]"
    assert len(list(rows.rows(io.BytesIO(long_list), "f"))) == 100, (
        "a list on one line may be longer than a line of JSON lines"
    )


texts = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20)
conversations = st.lists(st.tuples(texts, texts), min_size=1, max_size=3)


@given(st.lists(conversations, max_size=5))
def test_messages_come_back_as_they_were(chats: list[list[tuple[str, str]]]) -> None:
    lines = [
        json.dumps(
            {
                "messages": [
                    {"role": role, "content": text}
                    for turn in chat
                    for role, text in zip(("user", "assistant"), turn, strict=True)
                ]
            }
        )
        for chat in chats
    ]
    got = (
        []
        if not lines
        else list(
            formats.read_rows(rows.rows(io.BytesIO("\n".join(lines).encode()), "f"), "auto", "")
        )
    )
    assert [[one.text for one in record.messages] for record in got] == [
        [text for turn in chat for text in turn] for chat in chats
    ]


@given(st.lists(st.sampled_from(["system", "user", "assistant", "tool"]), max_size=8))
def test_what_is_checked_is_a_training_conversation_or_an_error(roles: list[str]) -> None:
    record = Record(tuple(Message(role, "x") for role in roles), "f:1")  # type: ignore[arg-type]
    try:
        messages = checked(record).messages
    except UsageError as error:
        assert error.message.startswith("f:1: ") and disorder(trimmed(record.messages))
        return
    turns = [one.role for one in messages if one.role != "system"]
    assert (
        turns == ["user", "assistant"] * (len(turns) // 2)
        and turns
        and [one.role for one in messages][1:].count("system") == 0
    )


def record_of(number: int) -> Record:
    return Record(
        (Message("user", f"q{number}"), Message("assistant", f"a{number}")), f"f:{number}"
    )


numbers = st.lists(st.integers(0, 60), max_size=60)


@given(numbers, numbers, st.floats(0, 0.9), st.integers(0, 3))
def test_a_share_never_moves_a_record_and_never_parts_equals(
    old: list[int], new: list[int], share: float, seed: int
) -> None:
    def sides(chosen: list[int]) -> dict[int, bool]:
        try:
            train, evaluation = split([record_of(number) for number in chosen], float(share), seed)
        except UsageError:
            return {}
        learnt, held = (
            {int(one.messages[0].text[1:]) for one in side} for side in (train, evaluation)
        )
        assert len(train) + len(evaluation) == len(chosen) and not learnt & held
        return dict.fromkeys(learnt, False) | dict.fromkeys(held, True)

    before, after = sides(old), sides(old + new)
    assert all(after[number] == side for number, side in before.items()) or not after


@given(numbers, numbers, st.integers(0, 20))
def test_a_count_moves_records_to_training_only(old: list[int], new: list[int], count: int) -> None:
    try:
        _, before = split(list(map(record_of, old)), count)
        train, after = split(list(map(record_of, old + new)), count)
    except UsageError:
        assert len(old) <= count
        return
    assert len(before) <= count and len(after) <= count
    assert not {fingerprint(one) for one in train} & {fingerprint(one) for one in after}
    kept_out = {fingerprint(record_of(number)) for number in old} - {
        fingerprint(one) for one in before
    }
    assert not kept_out & {fingerprint(one) for one in after}, (
        "what was learnt from is never evaluated with later"
    )


def test_a_share_is_about_that_share() -> None:
    train, evaluation = split(list(map(record_of, range(10_000))), 0.05)
    assert 430 <= len(evaluation) <= 570 and len(train) + len(evaluation) == 10_000
    assert split(list(map(record_of, range(10_000))), 0.05, seed=1)[1] != evaluation
    exact = split(list(map(record_of, range(100))), 10)
    assert (len(exact[0]), len(exact[1])) == (90, 10)
    for wrong in (1.0, -0.1, 100, -1):
        with pytest.raises(UsageError):
            split(list(map(record_of, range(100))), wrong)


@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 9)), min_size=1, max_size=4),
    st.integers(0, 5),
)
def test_a_mixture_has_its_shares_and_repeats_nothing(
    groups: list[tuple[int, int]], seed: int
) -> None:
    sets = [
        [Record((), f"{index}:{number}", f"{index}:{number}") for number in range(size)]
        for index, (size, _) in enumerate(groups)
    ]
    weights = [str(weight) for _, weight in groups]
    mixed = mix(sets, weights, seed)
    assert mixed == mix(sets, weights, seed) and len({record.place for record in mixed}) == len(
        mixed
    )
    total = sum(weight for _, weight in groups)
    for index, (size, weight) in enumerate(groups):
        count = sum(record.place.startswith(f"{index}:") for record in mixed)
        assert count <= size and abs(count - len(mixed) * weight / total) <= len(groups)
    counts = [
        sum(record.place.startswith(f"{index}:") for record in mixed)
        for index in range(len(groups))
    ]
    assert any(count == size for count, (size, _) in zip(counts, groups, strict=True)), (
        "one group is used up"
    )


def test_weights_behind_sources(world: World, tmp_path: Path) -> None:
    rows_of = {
        name: [{"instruction": f"{name}{number}", "output": "a"} for number in range(count)]
        for name, count in (("x", 9), ("y", 40))
    }
    x, y = (write(tmp_path, json.dumps(value), name) for name, value in rows_of.items())

    def questions(*sources: str, seed: int = 0) -> list[str]:
        return [record.messages[0].text for record in read(sources, "auto", world, seed=seed)]

    assert questions(x, y) == [f"x{number}" for number in range(9)] + [
        f"y{number}" for number in range(40)
    ]
    mixed = questions(f"{x}=3", y)
    assert (sum(one[0] == "x" for one in mixed), len(mixed)) == (9, 12) and [
        one[0] for one in mixed
    ] == list("xxyx" * 3)
    assert mixed == questions(f"{x}=3", f"{y}=1") == questions(
        f"{x}=1.5", f"{y}=0.5"
    ) and mixed != questions(f"{x}=3", y, seed=1)
    named = write(tmp_path, json.dumps(rows_of["x"]), "really=3")
    assert len(questions(named)) == 9 and questions(named)[0] == "x0", (
        "a file of that name is no weight"
    )


def test_a_data_set_of_the_hub_from_its_cache(tmp_path: Path) -> None:
    """The real library, offline: the cache is laid out as a download leaves it."""
    pytest.importorskip("datasets")
    code = """
import json, os, shutil, sys
from pathlib import Path
cache, samples = Path(sys.argv[1]), sys.argv[2]
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(cache)}
import datasets
datasets.load_dataset("json", data_files=samples, split="train")
made = next(cache.rglob("dataset_info.json")).parent
target = cache / "org___name/default/0.0.0" / ("a" * 40)
target.mkdir(parents=True)
for file in made.iterdir():
    shutil.copy(file, target / file.name.replace("json-train", "name-train"))
"""
    cache = tmp_path / "cache"
    subprocess.run(
        [sys.executable, "-c", code, str(cache), sample("alpaca")], check=True, capture_output=True
    )
    reading = """
import json, sys
from llmchat.errors import LlmchatError
from llmchat.finetune.data import read
from llmchat.settings import World
for source in sys.argv[1:]:
    try:
        records = read([source], "auto", World.real(), offline=True)
        print(json.dumps([[one.place, one.messages[0].text] for one in records]))
    except LlmchatError as error:
        print(type(error).__name__, error.message)
"""
    env = {"HOME": str(tmp_path), "PATH": "", "HF_DATASETS_CACHE": str(cache)}
    sources = ["hub:org/name", "hub:org/name:train[:1]", "hub:org/name:test", "hub:org/other"]
    done = subprocess.run(
        [sys.executable, "-c", reading, *sources], capture_output=True, text=True, env=env
    )
    whole, first, wrong, missing = done.stdout.splitlines()
    assert done.stderr == ""
    assert (
        json.loads(whole)[1] == ["hub:org/name:2", "Identify the odd one out."]
        and len(json.loads(whole)) == 3
    )
    assert json.loads(first) == [
        ["hub:org/name:train[:1]:1", "Give three tips for staying healthy."]
    ]
    assert wrong.startswith('UsageError hub:org/name:test: Unknown split "test"')
    assert missing.startswith("NetworkError hub:org/other: Couldn't reach 'org/other' on the Hub")


READ_ONE = """
import sys
from llmchat.errors import LlmchatError
from llmchat.finetune.data import read
from llmchat.settings import World
try:
    list(read(["hub:org/name"], "auto", World.real()))
except LlmchatError as error:
    print(error.exit_code, error.message)
"""


@pytest.mark.parametrize(
    ("status", "kind", "line"),
    [
        (
            404,
            "RepoNotFound",
            "2 hub:org/name: Dataset 'org/name' doesn't exist on the Hub or cannot be accessed.",
        ),
        (401, "GatedRepo", "4 hub:org/name: Dataset 'org/name' is a gated dataset on the Hub."),
    ],
)
def test_what_the_hub_refuses(status: int, kind: str, line: str, tmp_path: Path) -> None:
    """The real library against a server that answers as the Hub does."""
    pytest.importorskip("datasets")

    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", kind)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_POST = do_GET

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        env = {
            "HOME": str(tmp_path),
            "PATH": "",
            "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        }
        done = subprocess.run(
            [sys.executable, "-c", READ_ONE],
            capture_output=True,
            text=True,
            env=env,
            cwd=tmp_path,
            timeout=100,
        )
    finally:
        server.shutdown()
    assert done.stderr == "" and done.stdout.startswith(line)


def test_a_folder_of_the_same_name_is_not_taken_for_the_hub(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "org/name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="`datasets` would read the folder org/name that is here"):
        list(read(["hub:org/name"], "auto", world))


def test_a_library_that_is_not_there_is_one_line(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(
        LlmchatError, match="reading hub:org/name needs the library `datasets`"
    ) as caught:
        list(read(["hub:org/name"], "auto", world))
    assert caught.value.hint == "pip install 'llmchat[finetune]'"
