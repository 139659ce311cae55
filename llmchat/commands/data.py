"""The commands for training data: inspect, clean, convert. They never write to their sources."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmchat.commands import options
from llmchat.errors import UsageError
from llmchat.output.terminal_text import fit_for
from llmchat.settings import World

if TYPE_CHECKING:
    from llmchat.finetune.data.cleaner import Examiner, Finding, Report
    from llmchat.finetune.data.lengths import Lengths
    from llmchat.finetune.records import Record

app = typer.Typer(
    help="Inspect, clean and convert training data.",
    no_args_is_help=True,
)

_Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE...",
        help="A file, a folder, - for stdin, hub:org/name[:split] or sessions:[ID]; append"
        " =WEIGHT for its share of a mixture.",
    ),
]
_Format = Annotated[
    str,
    typer.Option(
        "-f",
        "--format",
        help="Format of the data: auto (by its fields), alpaca, dolly, sharegpt, messages, …",
    ),
]
_Examples = Annotated[int, typer.Option("--examples", help="Examples to print for each flaw.")]
_Language = Annotated[
    str, typer.Option("--language", help="Report records in other languages than this: en, de, zh.")
]
_MaxTokens = Annotated[
    int,
    typer.Option(
        "--max-tokens",
        help="Report records with more tokens, counted with --model, else estimated.",
    ),
]
_Near = Annotated[bool, typer.Option("--near/--no-near", help="Look for near duplicates.")]
_Output = Annotated[
    str, typer.Option("-o", "--output", help="The file to write: JSON lines, or a list for *.json.")
]
_Force = Annotated[bool, typer.Option("--force", help="Replace existing files.")]
_MixSeed = Annotated[int, typer.Option("--seed", help="Seed of a mixture.")]
_JoinInput = Annotated[
    bool, typer.Option("--join-input", help="Merge inputs into their questions.")
]


_Languages = Annotated[bool, typer.Option("--languages", help="Count languages.")]


@app.command()
def inspect(
    ctx: typer.Context,
    sources: _Sources,
    format: _Format = "auto",
    examples: _Examples = 3,
    languages: _Languages = False,
    language: _Language = "",
    max_tokens: _MaxTokens = 0,
    model: options.Model = None,
    near: _Near = True,
    seed: _MixSeed = 0,
    offline: options.Offline = None,
    json: options.Json = False,
) -> None:
    """Count records, lengths and flaws, with examples."""
    from llmchat.finetune.data import read
    from llmchat.finetune.data.cleaner import choose_drops

    world: World = ctx.obj
    records = read(sources, format, world, seed=seed, offline=bool(offline), strict=False)
    examiner = _examiner(
        world,
        choose_drops(),
        near,
        model,
        language=language,
        languages=languages,
        limit=max_tokens,
        examples=examples,
    )
    for record in records:
        examiner.examine(record)
    _show(world, examiner.report(), json=json, cleaned=False)


_Removed = Annotated[
    str,
    typer.Option(
        "--removed",
        help="File for removed records and the reasons; by default next to the output.",
    ),
]
_Drop = Annotated[
    str, typer.Option("--drop", help="More flaws to drop than the certain ones: NAME,NAME or all.")
]
_Keep = Annotated[str, typer.Option("--keep", help="Flaws never to drop: NAME,NAME or all.")]
_Fix = Annotated[bool, typer.Option("--fix", help="Fix what can be fixed.")]
_To = Annotated[
    str,
    typer.Option("--to", help="alpaca, messages, sharegpt or text; by default as in the source."),
]


@app.command()
def clean(
    ctx: typer.Context,
    sources: _Sources,
    output: _Output = "",
    removed: _Removed = "",
    drop: _Drop = "",
    keep: _Keep = "",
    fix: _Fix = False,
    format: _Format = "auto",
    to: _To = "",
    examples: _Examples = 3,
    language: _Language = "",
    max_tokens: _MaxTokens = 0,
    model: options.Model = None,
    near: _Near = True,
    seed: _MixSeed = 0,
    force: _Force = False,
    offline: options.Offline = None,
    json: options.Json = False,
) -> None:
    """Drop records with flaws. Without --output nothing is written; only the counts are printed."""
    from llmchat.finetune.data import read
    from llmchat.finetune.data.cleaner import choose_drops

    world: World = ctx.obj
    drops = choose_drops(_list(drop), _list(keep))
    if drops & {"near-duplicate"} and not near:
        raise UsageError("--drop near-duplicate needs --near")
    records = read(sources, format, world, seed=seed, offline=bool(offline), strict=False)
    paths = _targets(output, removed, list(_names(sources, world, format)), force)
    form = _form(to, sources[0], format, world)
    examiner = _examiner(
        world, drops, near, model, language=language, limit=max_tokens, examples=examples
    )
    report = _write_clean(records, examiner, drops, form, paths, world, fix=fix)
    _show(world, report, json=json, cleaned=True)
    kept = f"{report.kept} of {report.records} records kept"
    dropped = f"{report.records - report.kept} removed"
    if output:
        print(f"{kept}: {paths[0]}\n{dropped}: {paths[1]}", file=world.stderr)
    else:
        print(f"{kept}, {dropped}; --output FILE writes them", file=world.stderr)


def _form(to: str, source: str, format: str, world: World) -> Callable[["Record"], Any]:
    """The function that writes a record in the format `to`, or in that of the first source."""
    from llmchat.finetune.data import convert
    from llmchat.finetune.data.sources import first_format, parse

    if to:
        return convert.form_named(to)
    known = first_format(parse(source, world, format), format, world)
    return convert.FORMS.get({"dolly": "alpaca"}.get(known, known), convert.to_messages)


def _write_clean(
    records: Iterable["Record"],
    examiner: "Examiner",
    drops: frozenset[str],
    form: Callable[["Record"], Any],
    paths: tuple[Path | None, Path | None],
    world: World,
    *,
    fix: bool,
) -> "Report":
    """Clean the records; write what is kept and what is removed to the paths, if there are any."""
    from llmchat.finetune.data import convert
    from llmchat.finetune.data.cleaner import clean

    with ExitStack() as files:
        write_kept, write_removed = (
            files.enter_context(convert.writer(path, world)) if path else _ignore for path in paths
        )
        return clean(
            records,
            examiner,
            drops,
            fix=fix,
            keep=lambda record: write_kept(form(record)),
            remove=lambda record, found: write_removed(
                {"place": record.place, "reasons": found, "record": convert.as_found(record)}
            ),
        )


def _ignore(value: Any) -> None:
    """Write nothing."""


@app.command("convert")
def convert_data(
    ctx: typer.Context,
    sources: _Sources,
    to: Annotated[str, typer.Option("--to", help="alpaca, messages, sharegpt or text.")],
    output: _Output = "",
    format: _Format = "auto",
    language: Annotated[
        str, typer.Option("--language", help="Only OASST trees in this language.")
    ] = "",
    join_input: _JoinInput = False,
    seed: _MixSeed = 0,
    force: _Force = False,
    offline: options.Offline = None,
) -> None:
    """Convert training data to another format, in a file or as JSON lines on stdout."""
    from llmchat.finetune.data import convert, read

    world: World = ctx.obj
    form = convert.form_named(to)
    records = read(sources, format, world, seed=seed, language=language, offline=bool(offline))
    path = convert.free(output, list(_names(sources, world, format)), force) if output else None
    count = 0
    with convert.writer(path, world) as write:
        for record in records:
            count += 1
            write(form(convert.joined(record) if join_input else record))
    if path:
        print(f"{count} records: {path}", file=world.stderr)


def _list(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _names(sources: list[str], world: World, format: str) -> Iterator[str]:
    from llmchat.finetune.data.sources import parse

    return (parse(text, world, format).name for text in sources)


def _targets(
    output: str, removed: str, names: list[str], force: bool
) -> tuple[Path | None, Path | None]:
    from llmchat.finetune.data import convert

    if not output:
        if removed:
            raise UsageError("--removed needs --output")
        return None, None
    kept = convert.free(output, names, force)
    gone = convert.free(removed or str(kept.with_name(f"{kept.stem}.removed.jsonl")), names, force)
    if kept.resolve() == gone.resolve():
        raise UsageError("--output and --removed are the same file")
    return kept, gone


def _examiner(
    world: World, drops: frozenset[str], near: bool, model: str | None, **options: Any
) -> "Examiner":
    from llmchat.finetune.data.cleaner import Examiner
    from llmchat.finetune.data.duplicates import Near
    from llmchat.finetune.data.lengths import counter
    from llmchat.models.opener import preset_of

    if near and not Near.available() and "near-duplicate" not in drops:
        print(
            "note: near duplicates are not searched for; that requires `rensa`"
            " (pip install 'llmchat[finetune]')",
            file=world.stderr,
        )
        near = False
    count, why = counter(preset_of(world, model=model) if model else None, world)
    if why and (model or options["limit"]):
        print(f"note: {why}", file=world.stderr)
    return Examiner(drops, near=near, count=count, **options)


def _show(world: World, report: "Report", *, json: bool, cleaned: bool) -> None:
    """Print a report as JSON, or as facts and then one paragraph for each flaw that was found."""
    from llmchat.ui import tables
    from llmchat.ui.json_output import print_json

    if json:
        return print_json(world, report)
    languages = (f"{code or 'unclear'} {count}" for code, count in report.languages.items())
    tables.facts(
        world,
        {
            "records": report.records,
            "plain texts": report.texts or "",
            "turns": report.turns,
            "with an input": report.with_input,
            "with a system text": report.with_system,
            "question characters": _spread(report.question),
            "answer characters": _spread(report.answer),
            "tokens": _spread(report.tokens),
            "languages": ", ".join(languages),
        },
    )
    found = [flaw for flaw in report.flaws if flaw.count]
    for flaw in found:
        _show_flaw(world, flaw, cleaned=cleaned)
    if not found:
        print("\nno flaws found", file=world.stdout)
    if cleaned:
        print(file=world.stdout)


def _spread(lengths: "Lengths") -> str:
    return f"median {lengths.median}, p95 {lengths.p95}, longest {lengths.longest}"


def _show_flaw(world: World, flaw: "Finding", *, cleaned: bool) -> None:
    dropped = f", {flaw.dropped} dropped" if cleaned and flaw.dropped else ""
    fixed = f", {flaw.fixed} mended" if cleaned and flaw.fixed else ""
    print(f"\n{flaw.flaw}: {flaw.count}{dropped}{fixed} — {flaw.about}", file=world.stdout)
    for place, text in flaw.examples:
        print(fit_for(world.stdout, f"  {place}: {text}"), file=world.stdout)
