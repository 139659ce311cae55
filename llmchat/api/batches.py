"""`llmchat.batch`: many prompts at once, for Python programs."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sized
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Generic, TypeVar, cast, overload

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from llmchat.api.chat import Chat
from llmchat.api.forms import Form, form_of, read_value
from llmchat.api.opening import as_option, checked
from llmchat.api.place import here
from llmchat.batches import Line, Outcome, Results, Work, lines_of, run
from llmchat.batches.reading import Reader, count_lines
from llmchat.batches.results import Sink
from llmchat.batches.roles import check_role, role_of_batch
from llmchat.batches.rows import Row, Sent, Tokens
from llmchat.batches.template import Template
from llmchat.errors import LlmchatError, UsageError
from llmchat.models.open_model import OpenModel
from llmchat.models.opener import ModelOpener
from llmchat.models.structures import check_for
from llmchat.roles import Role
from llmchat.settings import World, resolve

T = TypeVar("T")
# A file, or prompts: texts, and mappings as the lines of `llmchat batch`.
Prompts = str | Path | Iterable[str | Mapping[str, Any]]


class BatchAnswer(Struct, Generic[T], frozen=True, kw_only=True):
    """The answer to one prompt, or its error."""

    line: int
    """Number of the prompt, from 1."""
    custom_id: str | None = None
    """The `custom_id` that came with it."""
    text: str = ""
    """The answer."""
    value: T | None = None
    """An instance of the schema's type; None without a schema, and for an incomplete answer."""
    thinking: str = ""
    """The model's reasoning before the answer."""
    finish_reason: str = ""
    """`stop` or `length`; empty with an error."""
    usage: Tokens | None = None
    """Tokens."""
    window: Sent | None = None
    """What the model was given."""
    seed: int | None = None
    """The seed that reproduces the answer."""
    answers: tuple[str, ...] = ()
    """With `n`: the texts of all answers, the first one included."""
    error: str = ""
    """Why there is no answer; empty if there is one."""
    response: dict[str, Any] | None = None
    """The answer in OpenAI's form, for a request in OpenAI's form."""


class Batch(list[BatchAnswer[T]], Generic[T]):
    """The answers of a batch, in the order of the prompts. tokens, seconds: of this run."""

    tokens: int = 0
    seconds: float = 0.0

    @property
    def errors(self) -> list[BatchAnswer[T]]:
        """The answers with an error."""
        return [one for one in self if one.error]

    def _repr_html_(self) -> str:
        from llmchat.api.notebook import batch_html

        return batch_html([(one.line, one.error or one.text, bool(one.error)) for one in self])


@overload
def batch(
    prompts: Prompts, model: str | Chat[Any] | None = None, *, schema: type[T], **more: Any
) -> Batch[T]: ...
@overload
def batch(
    prompts: Prompts, model: str | Chat[Any] | None = None, *, schema: Any = None, **more: Any
) -> Batch[Any]: ...
def batch(
    prompts: Prompts,
    model: str | Chat[Any] | None = None,
    *,
    schema: Any = None,
    template: str | None = None,
    output: str | Path | None = None,
    n: int = 1,
    parallel: int = 16,
    quiet: bool = False,
    world: World | None = None,
    **options: Any,
) -> Batch[Any]:
    """Answer many prompts, several at once; returns the answers in order.

    prompts: texts, dicts (`prompt`, `messages`, `instruction` and `input`, or requests of OpenAI's
    batch API), or the path of a .jsonl, .csv, .tsv or .txt file. model: a name, or a chat whose
    model and settings are used, but not its conversation.
    schema: the form of the answers, as in `open`. template: the prompt, with fields of each line:
    `"Summarise: {text}"`. output: a file for the rows; one that exists is continued. n: answers to
    each prompt. parallel: answers that are made at once. quiet: print nothing on stderr.
    options: as in `open`.
    """
    world = world or here()
    filled = Template(template) if template is not None else None
    _check_prompts(prompts)
    with ExitStack() as stack:
        opened, form, role = _opened(stack, model, schema, world, options)
        sampling = replace(opened.preset.sampling, structure=form.structure)
        work = Work(opened, sampling, n, parallel, sampling.seed or 0, template or "", role)
        lines = _lines(prompts, filled, role, world)
        sink: Sink = Results(Path(output).expanduser(), work.fingerprint) if output else _Kept()
        stack.callback(sink.close)
        outcome = run(work, lines, sink, world, total=_total(prompts), quiet=quiet)
    if outcome.interrupted:
        raise KeyboardInterrupt
    rows = _rows_of(Path(output).expanduser()) if output else cast(_Kept, sink).in_order()
    return _batch(rows, form, outcome)


class _Kept:
    """Rows in memory; see `Sink`."""

    def __init__(self) -> None:
        self.kept: dict[str, bool] = {}
        self._rows: dict[int, Row] = {}

    def expect(self, number: int) -> None:
        pass

    def write(self, number: int, row: Row) -> None:
        self._rows[number] = row

    def finish(self, numbers: Mapping[str, int]) -> None:
        pass

    def close(self) -> None:
        pass

    def in_order(self) -> Iterator[dict[str, Any]]:
        for _, row in sorted(self._rows.items()):
            yield msgspec.to_builtins(row)


def _check_prompts(prompts: Prompts) -> None:
    """Raise UsageError for a file that is not there, before a model is loaded."""
    if isinstance(prompts, str | Path) and not Path(prompts).expanduser().is_file():
        raise UsageError(
            f"there is no file {prompts}", "pass prompts as a list, or the path of a file"
        )


def _lines(
    prompts: Prompts, template: Template | None, role: Role | None, world: World
) -> Iterator[Line]:
    if isinstance(prompts, str | Path):
        return lines_of(world, str(Path(prompts).expanduser()), template, role)
    return _lines_in_memory(prompts, Reader(template, role))


def _lines_in_memory(prompts: Iterable[str | Mapping[str, Any]], reader: Reader) -> Iterator[Line]:
    for number, one in enumerate(prompts, 1):
        value = {"prompt": one, "text": one} if isinstance(one, str) else one
        try:
            value = dict(value)
            text = msgspec.json.encode(value)
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"prompt {number} is not a text or a dict: `{type(one).__name__}`"
            ) from error
        yield reader.line(number, text, value)


def _total(prompts: Prompts) -> int | None:
    if isinstance(prompts, str | Path):
        return count_lines(str(prompts))
    return len(prompts) if isinstance(prompts, Sized) else None


def _opened(
    stack: ExitStack,
    model: str | Chat[Any] | None,
    schema: Any,
    world: World,
    options: Mapping[str, Any],
) -> tuple[OpenModel, Form[Any], Role | None]:
    """The model, until the stack is closed, the form of the answers, and what is asked in."""
    given = checked(options)
    if isinstance(model, Chat):
        if given:
            raise UsageError(
                f"`{next(iter(given))}` cannot be set: the batch uses the options of the chat",
                "`chat.set(…)` changes its settings",
            )
        opened, form, role = stack.enter_context(model.lent())
        if role is not None:
            check_role(role)
        form = form if schema is None else form_of(schema)
        check_for(form.structure, opened.preset.engine, opened.engine)
        return opened, form, role
    form, asked = form_of(schema), given | {"model": model}
    if schema is not None:
        asked["schema"] = as_option(schema, form)
    role = role_of_batch(resolve(world, asked).options.role, world.own_roles)
    opened = ModelOpener(world, asked, role=role.options() if role else {}).open()
    stack.callback(opened.engine.unload)
    if schema is None:
        form = form_of(opened.preset.sampling.structure)
    return opened, form, role


def _rows_of(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as stream:
        for line in stream:
            yield json.loads(line)


def _batch(rows: Iterable[dict[str, Any]], form: Form[Any], outcome: Outcome) -> Batch[Any]:
    found: Batch[Any] = Batch(_answer(row, form) for row in rows)
    found.tokens, found.seconds = outcome.tokens, outcome.seconds
    return found


def _answer(row: dict[str, Any], form: Form[Any]) -> BatchAnswer[Any]:
    if "line" not in row:
        return _of_openai(row)
    known = {name: row[name] for name in _SAME if row.get(name) is not None}
    if error := row.get("error"):
        return BatchAnswer(**known, error=_in_words(error))
    several = tuple(one["text"] for one in row.get("answers", ()))
    usage, window = Tokens(**row["usage"]), Sent(**row["window"])
    value, fault = _value(row, form)
    return BatchAnswer(
        **known, answers=several, usage=usage, window=window, value=value, error=fault
    )


_SAME = ("line", "custom_id", "text", "thinking", "finish_reason", "seed")


def _value(row: Mapping[str, Any], form: Form[Any]) -> tuple[Any, str]:
    """What a complete text stands for, or why its type refuses it."""
    structure = form.structure
    if structure is None or (structure.is_json and "value" not in row):
        return None, ""
    try:
        return read_value(form, row["text"]), ""
    except LlmchatError as error:
        return None, error.message


def _of_openai(row: Mapping[str, Any]) -> BatchAnswer[Any]:
    line, name, response = row["llmchat"]["line"], row.get("custom_id"), row.get("response")
    if response is None:
        return BatchAnswer(line=line, custom_id=name, error=row["error"]["message"])
    choices = response["body"]["choices"]
    texts = tuple(one["message"].get("content") or "" for one in choices)
    return BatchAnswer(
        line=line, custom_id=name, text=texts[0], response=response,
        finish_reason=choices[0]["finish_reason"], answers=texts if len(texts) > 1 else (),
    )  # fmt: skip


def _in_words(error: Mapping[str, str]) -> str:
    return "; ".join(filter(None, (error.get("message", ""), error.get("hint", ""))))
