"""Each flaw by what has it and by what only looks like it; then whole sets with flaws that were
planted.
"""

import json
import re
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from llmchat.conversation import Message
from llmchat.errors import UsageError
from llmchat.finetune.data import flaws, formats, read
from llmchat.finetune.data.cleaner import Examiner, choose_drops, clean
from llmchat.finetune.data.duplicates import Exact, Near
from llmchat.finetune.data.languages import Languages
from llmchat.finetune.data.lengths import counter, estimate, summary
from llmchat.finetune.records import Record
from llmchat.settings import World

PLAIN = Record(
    (Message("user", "What is the name of the ship?"), Message("assistant", "It is the Pequod.")),
    "f:1",
)


def asked(question: str, input: str = "") -> Record:
    return replace(PLAIN, messages=(Message("user", question, input), PLAIN.messages[1]))


def answered(text: str) -> Record:
    return replace(PLAIN, messages=(PLAIN.messages[0], Message("assistant", text)))


def chat(*texts: str, first: str = "user") -> Record:
    roles = ("user", "assistant") if first == "user" else ("assistant", "user")
    return Record(tuple(Message(roles[index % 2], text) for index, text in enumerate(texts)), "f:1")  # type: ignore[arg-type]


HAVE: list[tuple[str, list[Record], list[Record]]] = [
    (
        "order",
        [
            chat("a", "b", first="assistant"),
            chat("a"),
            chat("a", "b", "c"),
            replace(PLAIN, messages=PLAIN.messages * 2 + PLAIN.messages[1:]),
        ],
        [
            replace(PLAIN, messages=(Message("system", "s"), *PLAIN.messages)),
            Record((), "f:1", "a text"),
        ],
    ),
    (
        "empty-output",
        [answered(""), answered(" \n"), Record((), "f:1", "  "), Record((), "f:1")],
        [answered("0"), answered(".")],
    ),
    (
        "no-output",
        [
            answered(text)
            for text in ("N/A", "n/a.", " <nooutput> ", "No Output", "[noinput]", "<No output>.")
        ],
        [
            answered(text)
            for text in ("N/A is what they print.", "None", "No output was given", "Na", "no")
        ],
    ),
    (
        "placeholder-input",
        [
            asked("q", text)
            for text in (
                "<noinput>",
                "No input",
                "noinput",
                "<no input>",
                "(No Input)",
                "no input.",
            )
        ],
        [
            asked("q", text)
            for text in ("There is no input data.", "no input given", "", "noinputs")
        ],
    ),
    (
        "merged-instructions",
        [answered("Yes.\n18. Instruction: Go on."), answered("Yes\n##\n18.")],
        [answered("1. Instructions follow")],
    ),
    (
        "unseen",
        [
            asked("Summarize the text", "https://example.com/a"),
            asked("What does this link say? https://example.com/a"),
            asked("Describe it", "![a cat](http://example.com/cat.png)"),
            asked("Describe it", '<img src="cat.png">'),
            asked("Describe it", "image: cat.png"),
        ],
        [
            asked("Which protocol does https://example.com use?"),
            asked("Mend this file", "services:\n  web:\n    image: nginx"),
            asked("Summarize this article", "A long text without a link."),
        ],
    ),
    (
        "media-word",
        [asked("Draw a flowchart of it"), asked("Where can I go to?")],
        [asked("Write a paragraph"), asked("Withdraw it all")],
    ),
    (
        "instruction-length",
        [asked("Name a colour."), asked("w " * 151)],
        [asked("Name a nice colour."), asked("w " * 150)],
    ),
    (
        "odd-start",
        [asked("- do it now"), asked("? why"), asked("😀 hello")],
        [asked("给出三个提示"), asked("“Yes”, she said"), asked("¿Qué?"), asked("`ls`?")],
    ),
    ("program-asked", [asked("Write a program that sorts")], [asked("How do I write a program")]),
    (
        "control-characters",
        [answered("a\x07b"), asked("q", "\x00"), answered("\x7f")],
        [answered("a\tb\r\nc\u200b")],
    ),
    ("escaped-newline", [answered("one\\ntwo")], [answered("one\ntwo"), answered("C:\\\\new")]),
    (
        "echo",
        [asked("It is the Pequod."), asked("q", " It is the Pequod. "), chat("a", "b", "c", "c")],
        [chat("a", "b", "b", "a"), answered("")],
    ),
    (
        "wikipedia-markers",
        [asked("q", "It began in 1999.[12] Then")],
        [asked("q", "x = rows[1]"), answered("So they say.[1]")],
    ),
    (
        "label-text",
        [
            answered("Yes.\n\n### Response:\nNo."),
            asked("<|im_start|>system"),
            answered("[/INST]"),
            answered("### 답변: 네"),
        ],
        [answered("### Responses\nThree"), answered("a <| b"), answered("Human: hi")],
    ),
    (
        "speaker-label",
        [answered("Hi\nHuman: hello"), answered("USER: x")],
        [answered("A Human: that"), asked("Human: hello")],
    ),
    (
        "repeated",
        [
            answered("no " * 6),
            answered("So it is. " + "the ship went down " * 6),
            answered("The ship went down.\n" * 4),
            answered("保持健康" * 6),
            Record((), "f:1", "again and " * 10),
        ],
        [
            answered("no " * 5),
            answered("the ship went down " * 5),
            answered("The ship went down.\n" * 3),
            answered("0, 0, 0, 0, 0, 0, 0, 0, 0, 0"),
            answered("}\n" * 9),
        ],
    ),
    (
        "html",
        [answered('<div class="x">a</div>'), answered("a<br/>b"), answered("code:\nCopy code\n")],
        [answered("a < p > b"), answered("<script>")],
    ),
    (
        "refusal",
        [answered("As an AI language model, no."), answered("I'm sorry, but I cannot.")],
        [answered("I'm sorry to hear that.")],
    ),
    (
        "continue-turn",
        [chat("q", "a", "Continue.", "b"), chat("q", "a", "please go on", "b")],
        [chat("Continue", "a"), chat("q", "a", "Go on to B", "b")],
    ),
]


@pytest.mark.parametrize(("name", "guilty", "innocent"), HAVE, ids=[name for name, _, _ in HAVE])
def test_a_flaw_is_found_where_it_is_and_only_there(
    name: str, guilty: list[Record], innocent: list[Record]
) -> None:
    find = flaws.FLAWS[name].find
    assert [record for record in guilty if not find(record)] == []
    assert [(record, find(record)) for record in [PLAIN, *innocent] if find(record)] == []


def test_every_flaw_is_tested_above() -> None:
    assert {name for name, _, _ in HAVE} == set(flaws.FLAWS) and len(flaws.names()) == len(
        flaws.FLAWS
    ) + 4


def test_the_page_names_every_flaw_and_format() -> None:
    page = (Path(__file__).parents[2] / "docs/data.md").read_text("utf-8")
    table = page.partition("## Flaws")[2].partition("\n## ")[0]
    rows = {
        name: mark.strip()
        for name, mark in re.findall(r"^\| `([a-z-]+)` \|([^|]*)\|", table, re.MULTILINE)
    }
    marks = {
        name: " ".join(
            ("✓",) * drop + ("fix",) * bool(name in flaws.FLAWS and flaws.FLAWS[name].fix)
        )
        for name, (_, drop) in flaws.names().items()
    }
    assert rows == marks
    assert all(f"| `{name}`" in page for name in formats.FORMATS) and all(
        f"`{name}`" in page for name in ("gpt4-alpaca", "alpaca-cot")
    )


def test_what_can_be_mended_is() -> None:
    mended = {
        "order": (chat("x", "q", "a", "z", first="assistant"), chat("q", "a")),
        "placeholder-input": (asked("q", "<noinput>"), asked("q")),
        "control-characters": (answered("a\x07b"), answered("ab")),
        "wikipedia-markers": (
            asked("q", "In 1999.[1] Then,[23] more."),
            asked("q", "In 1999. Then, more."),
        ),
    }
    assert set(mended) == {name for name, one in flaws.FLAWS.items() if one.fix}
    for name, (before, after) in mended.items():
        fix = flaws.FLAWS[name].fix
        assert fix and fix(before) == after and not flaws.FLAWS[name].find(after)


letters = st.text(alphabet=st.sampled_from("ab \n\x00.#[](<>)1Nnoiput/A：好\\"), max_size=40)


@given(
    st.lists(
        st.tuples(st.sampled_from(["system", "user", "assistant", "tool"]), letters, letters),
        max_size=4,
    ),
    letters,
)
def test_no_record_breaks_a_test_and_mending_never_adds_a_flaw(
    said: list[tuple[str, str, str]], text: str
) -> None:
    record = Record(
        tuple(Message(role, words, input) for role, words, input in said),
        "f:1",
        "" if said else text,
    )  # type: ignore[arg-type]
    examiner = Examiner(choose_drops(), near=False)
    kept, _ = examiner.clean(record, fix=True)
    if kept:
        assert not choose_drops() & Examiner(choose_drops(), near=False).examine(kept).keys()


def test_which_flaws_are_dropped() -> None:
    certain = {name for name, (_, drop) in flaws.names().items() if drop}
    assert choose_drops() == certain and "near-duplicate" not in certain and "duplicate" in certain
    assert choose_drops(["html"], ["echo"]) == certain - {"echo"} | {"html"}
    assert choose_drops(["all"], ["echo"]) == set(flaws.names()) - {"echo"}
    assert choose_drops(["html"], ["all"]) == {"html"} and choose_drops([], ["all"]) == set()
    for wrong, line in ((["emtpy-output"], "unknown flaw `emtpy-output`"),):
        with pytest.raises(UsageError, match=line) as caught:
            choose_drops(wrong)
        assert caught.value.hint.startswith("did you mean `empty-output`")
    with pytest.raises(UsageError, match="`echo` cannot be dropped and kept"):
        choose_drops(["echo"], ["echo"])


def test_exact_duplicates_are_the_same_but_for_white_space() -> None:
    exact = Exact()
    assert exact.earlier(PLAIN) == ""
    assert exact.earlier(answered("It is the Pequod. \n")) == "f:1"
    assert (
        exact.earlier(answered("It is the pequod."))
        == ""
        == exact.earlier(replace(PLAIN, messages=PLAIN.messages[::-1]))
    )


STORY = (
    "Some years ago, never mind how long precisely, having little or no money in my purse, "
    "I thought I would sail about a little."
)


def test_near_duplicates() -> None:
    pytest.importorskip("rensa")
    near = Near()
    assert near.earlier(answered(STORY)) == ""
    assert near.earlier(replace(answered(STORY.upper() + " Ha!"), place="f:2")) == "f:1", (
        "case and a word at the end"
    )
    assert (
        near.earlier(
            answered(
                "Never mind how long, some years ago, I thought that I would have a purse "
                "and little money in it."
            )
        )
        == ""
    )
    assert (
        near.earlier(
            answered("给出三个保持健康的提示。保持均衡的饮食，经常锻炼，保证充足的睡眠，多喝水。")
        )
        == ""
    )
    assert (
        near.earlier(
            answered("给出三个保持健康的提示：保持均衡的饮食，经常锻炼，保证充足的睡眠，多喝水吧")
        )
        == "f:1"
    )


def test_the_only_good_copy_is_kept() -> None:
    """A record that goes for a flaw of its own does not take its near duplicate without that flaw
    with it.
    """
    pytest.importorskip("rensa")
    drops = choose_drops(["near-duplicate"])
    bad, good = answered(f"{STORY} ### Response:"), replace(answered(STORY), place="f:2")
    kept: list[Record] = []
    clean(
        [bad, good],
        Examiner(drops),
        drops,
        fix=False,
        keep=kept.append,
        remove=lambda record, found: None,
    )
    assert kept == [good]


def test_languages() -> None:
    pytest.importorskip("py3langid")
    languages = Languages()
    samples = {
        "en": answered(
            "It is the Pequod, which sailed from Nantucket to hunt the white whale in every sea."
        ),
        "de": chat(
            "Gib mir drei Tipps, um gesund zu bleiben.",
            "Iss ausgewogen, bewege dich viel und schlafe genug.",
        ),
        "zh": chat("给出三个保持健康的提示。", "保持均衡的饮食，经常锻炼，保证充足的睡眠。"),
        "": chat("7 * 6", "42"),
    }
    assert {code: languages.of(record) for code, record in samples.items()} == {
        code: code for code in samples
    }
    with pytest.raises(UsageError, match="unknown language code `english`"):
        languages.check("english")


@pytest.mark.slow
def test_lengths(world: World, smol_world: World) -> None:
    from array import array

    from llmchat.presets import find

    assert (
        summary(array("Q", range(1, 101))) == summary(array("Q", reversed(range(1, 101))))
        and summary(array("Q")).longest == 0
    )
    one = summary(array("Q", range(1, 101)))
    assert (one.median, one.p95, one.longest) == (51, 96, 100)
    assert estimate(answered("")) == 8 and estimate(Record((), "f", "保持健")) == 3
    count, why = counter(find("smollm2"), world)
    assert (
        count is estimate
        and why.startswith("`smollm2` is not pulled")
        and why.endswith("tokens are estimated as bytes / 4")
    )
    count, why = counter(find("smollm2"), smol_world)
    from llmchat.models.loading import tokenizer
    from llmchat.models.locate import locate

    model = locate(find("smollm2"), smol_world)
    prompt = model.preset.format.render(PLAIN.messages)
    assert why == "" and count(PLAIN) == len(tokenizer(model).encode(prompt)) > 15
    assert count(Record((), "f", "It is the Pequod.")) < 10 and count(chat("a")) == 1


def test_planted_flaws_are_found_exactly(world: World, tmp_path: Path) -> None:
    pytest.importorskip("rensa")
    pytest.importorskip("py3langid")
    import data as bench

    records, expected = bench.planted(1000, seed=3)
    file = tmp_path / "set.json"
    file.write_text(json.dumps(records), "utf-8")
    drops = choose_drops(["all"])
    examiner = Examiner(drops, language="en", limit=bench.LIMIT)
    for record in read([str(file)], "auto", world, strict=False):
        examiner.examine(record)
    report = examiner.report()
    # With all flaws dropped, copies are looked for among flawless records; all planted ones are
    # copies of such.
    assert {
        one.flaw: one.count for one in report.flaws if one.count
    } == expected and report.records == len(records)
    kept: list[Record] = []
    removed: list[tuple[Record, dict[str, str]]] = []
    again = Examiner(drops, language="en", limit=bench.LIMIT)
    stream = read([str(file)], "auto", world, strict=False)
    report = clean(
        stream,
        again,
        drops,
        fix=True,
        keep=kept.append,
        remove=lambda record, found: removed.append((record, found)),
    )
    mended = sum(one.fixed for one in report.flaws)
    assert (
        mended == 3 * expected["echo"]
        and len(removed) == sum(expected.values()) - mended
        and len(kept) + len(removed) == len(records)
    )
    assert all(found for _, found in removed) and sum(one.dropped for one in report.flaws) == len(
        removed
    )
    untouched = {record.place for record, _ in removed}
    assert untouched.isdisjoint(record.place for record in kept)


def test_a_report_shows_no_control_character() -> None:
    examiner = Examiner(choose_drops(), near=False)
    examiner.examine(answered("### Response: \x1b[31mred"))
    shown = [text for one in examiner.report().flaws for _, text in one.examples]
    assert shown and all(text.isprintable() for text in shown)


def test_without_the_library_near_duplicates_are_an_error_only_when_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "rensa", None)
    with pytest.raises(UsageError, match="finding near duplicates needs the library `rensa`"):
        Examiner(choose_drops())
    assert Examiner(choose_drops(), near=False).examine(PLAIN) == {}
