"""The flaws of a record: for each, a function that returns the text that shows it, or "".

The checks follow the cleaners of 2023 (gururise/AlpacaDataCleaned, Stanford Alpaca's
generate_instruction.py, FastChat's clean_sharegpt.py) without their known false alarms; comments
explain the differences. `clean` drops records with a certain flaw by default and only counts flaws
that are a matter of taste. Checks that need more than one record are in cleaner.py.
"""

import functools
import re
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from operator import eq

from msgspec import Struct
from msgspec.structs import replace

from llmchat.finetune.records import Record, disorder, trimmed

Find = Callable[[Record], str]
Fix = Callable[[Record], Record]


class Flaw(Struct, frozen=True):
    """drop: `clean` drops it by default. fix: returns the record without the flaw."""

    name: str
    about: str
    find: Find
    drop: bool
    fix: Fix | None = None


FLAWS: dict[str, Flaw] = {}
# Found by cleaner.py, which has all records, the requested language and the tokenizer.
OTHERS = {
    "wrong-language": ("another language than --language", True),
    "too-long": ("more tokens than --max-tokens", True),
    "duplicate": ("the same conversation as an earlier record", True),
    "near-duplicate": ("four fifths of its phrases are those of an earlier record", False),
}
_ABOUT = 60


def flaw(
    name: str, about: str, *, drop: bool = False, fix: Fix | None = None
) -> Callable[[Find], Find]:
    def register(find: Find) -> Find:
        FLAWS[name] = Flaw(name, about, find, drop, fix)
        return find

    return register


def names() -> dict[str, tuple[str, bool]]:
    """Every flaw: its description, and whether `clean` drops it by default."""
    return {name: (one.about, one.drop) for name, one in FLAWS.items()} | OTHERS


def texts(record: Record) -> Iterator[str]:
    """All texts of a record."""
    if record.text:
        yield record.text
    for message in record.messages:
        if message.input:
            yield message.input
        yield message.text


def questions(record: Record) -> Iterator[str]:
    return (message.text for message in record.messages if message.role == "user")


def inputs(record: Record) -> Iterator[str]:
    return (message.input for message in record.messages if message.input)


def answers(record: Record) -> Iterator[str]:
    """The texts that a model would learn to write; a plain text as a whole."""
    if record.text:
        yield record.text
    yield from (message.text for message in record.messages if message.role == "assistant")


def excerpt(text: str, match: re.Match[str] | None) -> str:
    """The match with some text around it, on one line; "" without a match."""
    if match is None:
        return ""
    start, end = (
        max(0, match.start() - 20),
        min(len(text), max(match.end(), match.start() + _ABOUT)),
    )
    return f"{'…' if start else ''}{text[start:end]}{'…' if end < len(text) else ''}" or "(empty)"


def _first(pattern: re.Pattern[str], parts: Iterator[str]) -> str:
    return next((excerpt(part, match) for part in parts if (match := pattern.search(part))), "")


def _whole(pattern: re.Pattern[str], parts: Iterator[str]) -> str:
    return next(
        (excerpt(part, match) for part in parts if (match := pattern.fullmatch(part.strip()))), ""
    )


def _rewritten(record: Record, change: Callable[[str], str]) -> Record:
    messages = tuple(
        replace(message, text=change(message.text), input=change(message.input))
        for message in record.messages
    )
    return replace(record, messages=messages, text=change(record.text))


def _in_order(record: Record) -> Record:
    return replace(record, messages=trimmed(record.messages))


@flaw(
    "order",
    "questions and answers are not by turns, from a question to an answer",
    drop=True,
    fix=_in_order,
)
def order(record: Record) -> str:
    return "" if record.text or not record.messages else disorder(record.messages)


@flaw("empty-output", "an answer or a text without a letter", drop=True)
def empty_output(record: Record) -> str:
    return (
        "(empty)"
        if any(not answer.strip() for answer in answers(record))
        or not (record.messages or record.text)
        else ""
    )


_NO_OUTPUT = re.compile(r"[\[(<]?(?:n\s?/\s?a|no\s*output|no\s*input)[\])>]?\.?", re.IGNORECASE)


@flaw("no-output", "N/A, <nooutput> or <noinput> as a whole answer", drop=True)
def no_output(record: Record) -> str:
    return _whole(_NO_OUTPUT, answers(record))


_PLACEHOLDER = re.compile(r"[\[(<]?no\s*input[\])>.]?", re.IGNORECASE)


def _without_placeholder(record: Record) -> Record:
    messages = (
        replace(one, input="") if _PLACEHOLDER.fullmatch(one.input.strip()) else one
        for one in record.messages
    )
    return replace(record, messages=tuple(messages))


@flaw(
    "placeholder-input",
    "`<noinput>` or `No input` where there is no input",
    fix=_without_placeholder,
)
def placeholder_input(record: Record) -> str:
    # AlpacaDataCleaned searches anywhere, so `no input data was given` in a real text matches.
    return _whole(_PLACEHOLDER, inputs(record))


_MERGED = re.compile(r"\d{1,2}\.\sInstruction:|\n##\n", re.IGNORECASE)


@flaw("merged-instructions", "a second generated task inside the answer", drop=True)
def merged_instructions(record: Record) -> str:
    return _first(_MERGED, answers(record))


# AlpacaDataCleaned looks for `image:` anywhere; in the middle of a line that is YAML or prose.
_PICTURE = re.compile(
    r"!\[[^\]\n]*\]\(\s*https?:|\bimg src=|^\[?image:|\bimage: *https?:",
    re.IGNORECASE | re.MULTILINE,
)
_LINK = re.compile(r"https?://\S+", re.IGNORECASE)
_TO_READ = re.compile(
    r"\barticle|\bsummar"
    r"|\b(?:this|the|following|given) (?:link|page|website|web ?page|blog|video|url)\b",
    re.IGNORECASE,
)


@flaw("unseen", "asks about a picture, or about a page that is only linked", drop=True)
def unseen(record: Record) -> str:
    for message in record.messages:
        if message.role == "user":
            asked = f"{message.text}\n{message.input}" if message.input else message.text
            if found := excerpt(asked, _PICTURE.search(asked)):
                return found
            link = _LINK.search(asked)
            if link and _TO_READ.search(asked):
                return excerpt(asked, link)
    return ""


# Stanford Alpaca's blacklist of words in an instruction.
_MEDIA = re.compile(
    r"\b(?:images?|graphs?|pictures?|files?|maps?|draw|plot|go to"
    r"|videos?|audio|music|flowcharts?|diagrams?)\b",
    re.IGNORECASE,
)


@flaw("media-word", "an instruction with a word such as image, file, draw, video (often harmless)")
def media_word(record: Record) -> str:
    return _first(_MEDIA, questions(record))


@flaw("instruction-length", "a first question of 3 words or fewer, or of more than 150")
def instruction_length(record: Record) -> str:
    question = next(questions(record), None)
    if question is None:
        return ""
    count = len(words(question))
    return "" if 3 < count <= 150 else f"{count} words: {question[:_ABOUT]}"


@flaw("odd-start", "a question that begins with punctuation")
def odd_start(record: Record) -> str:
    # Stanford Alpaca also refuses every letter beyond ASCII, so only English passes.
    question = next(questions(record), "").lstrip()
    return (
        ""
        if not question or question[0].isalnum() or question[0] in "\"'“‘«「¿¡`([<"
        else question[:_ABOUT]
    )


@flaw("program-asked", "begins with `Write a program`, of which many have no code for an answer")
def program_asked(record: Record) -> str:
    return next(
        (
            question[:_ABOUT]
            for question in questions(record)
            if question.lower().startswith("write a program")
        ),
        "",
    )


_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


@flaw(
    "control-characters",
    "characters that no one can see or type",
    fix=lambda record: _rewritten(record, lambda text: _CONTROL.sub("", text)),
)
def control_characters(record: Record) -> str:
    return repr(found) if (found := _first(_CONTROL, texts(record))) else ""


_ESCAPED = re.compile(r"[^\\]\\n")


@flaw("escaped-newline", "a backslash and an n where a line should end (right in code)")
def escaped_newline(record: Record) -> str:
    return _first(_ESCAPED, texts(record))


@flaw("echo", "the answer repeats the question or its input word for word", drop=True)
def echo(record: Record) -> str:
    for asked, answer in pairwise(record.messages):
        words = answer.text.strip()
        if (
            asked.role == "user"
            and answer.role == "assistant"
            and words
            and words in (asked.text.strip(), asked.input.strip())
        ):
            return words[:_ABOUT]
    return ""


# Only after punctuation: after a letter it is an index in code.
_REFERENCE = re.compile(r"(?<=[.,;:!?)”\"’'])\[\d{1,3}\]")


@flaw(
    "wikipedia-markers",
    "footnote marks such as [1] in the input",
    fix=lambda record: _rewritten(record, lambda text: _REFERENCE.sub("", text)),
)
def wikipedia_markers(record: Record) -> str:
    return _first(_REFERENCE, inputs(record))


@functools.cache
def _labels() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """The labels of all prompt formats: marked ones, and plain words at the start of a line."""
    from llmchat.presets import formats, get_format

    labels = {
        label for name in formats() if (parts := get_format(name).parts) for label in parts.labels
    }
    marked = sorted(
        (label for label in labels if re.search(r"[#<\[|]", label)), key=len, reverse=True
    )
    plain = sorted(labels - set(marked), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, marked))), re.compile(
        rf"^(?:{'|'.join(map(re.escape, plain))})", re.MULTILINE
    )


@flaw(
    "label-text",
    "a prompt format's label inside a message, such as `### Response:` or `<|im_end|>`",
    drop=True,
)
def label_text(record: Record) -> str:
    return _first(_labels()[0], texts(record))


@flaw(
    "speaker-label",
    "a line that begins like a speaker's turn of some format, such as `Human:` "
    "(right in a dialogue that was requested)",
)
def speaker_label(record: Record) -> str:
    return _first(_labels()[1], answers(record))


# CJK writes no spaces: there each character counts as a word.
_WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+"
)
_REPEATS, _LONGEST_PHRASE, _LINES = 6, 8, 4


def words(text: str) -> list[str]:
    return _WORD.findall(text)


@flaw(
    "repeated",
    "a phrase of up to 8 words 6 times in a row, or a line of 4 words and more 4 times",
    drop=True,
)
def repeated(record: Record) -> str:
    for answer in answers(record):
        if len(answer) < _REPEATS:
            continue
        if answer.count("\n") >= _LINES - 1:
            line, count = Counter(answer.split("\n")).most_common(1)[0]
            if count >= _LINES and len(line.split()) >= 4:
                return f"{count} times: {line.strip()[:_ABOUT]}"
        sequence = words(answer)
        for length in range(1, min(_LONGEST_PHRASE, len(sequence) // _REPEATS) + 1):
            # If five phrases in a row equal the words `length` before, the phrase occurs six times.
            at = bytes(map(eq, sequence, sequence[length:])).find(
                b"\x01" * (length * (_REPEATS - 1))
            )
            phrase = sequence[at : at + length] if at >= 0 else []
            # Rows of figures are tables and matrices, not repetitions.
            if any(word[0].isalpha() for word in phrase):
                return f"{_REPEATS} times: {' '.join(phrase)}"
    return ""


_HTML = re.compile(
    r"</?(?:div|span|p|br|svg|button)(?:\s[^<>]*)?/?>|^Copy code$", re.IGNORECASE | re.MULTILINE
)


@flaw("html", "tags of a web page, or its `Copy code` button (right where HTML was asked for)")
def html(record: Record) -> str:
    return _first(_HTML, answers(record))


_REFUSAL = re.compile(
    r"\bas an? (?:AI|artificial intelligence)(?: language)? model\b"
    r"|\bI(?:'|’)?m sorry, (?:but )?(?:I|as an)\b",
    re.IGNORECASE,
)


@flaw("refusal", "an answer that refuses or speaks of being a language model")
def refusal(record: Record) -> str:
    return _first(_REFUSAL, answers(record))


_CONTINUE = re.compile(
    r"(?:please )?(?:continue|go on|keep going|carry on|more)[.!]*", re.IGNORECASE
)


@flaw("continue-turn", "a later question that only says `continue`")
def continue_turn(record: Record) -> str:
    asked = list(questions(record))
    return _whole(_CONTINUE, iter(asked[1:]))
