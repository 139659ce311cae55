"""The shipped presets, a user's presets, and options that replace a preset's values."""

import re
from pathlib import Path

import pytest
from msgspec.structs import replace

from llmchat.errors import ModelNotFound, UsageError
from llmchat.presets import check as check_preset
from llmchat.presets import estimate_fit, find, formats, get_format, names, preset_for
from llmchat.presets.load import SHIPPED
from llmchat.presets.override import split_scale
from llmchat.settings import Options
from llmchat.structure import Structure

# The names in the last version of LLM-As-Chatbot's list (November 2023).
LISTED = """
    t5-vicuna-3b camel-5b mpt-7b mpt-30b redpajama-7b alpaca-lora-7b alpaca-lora-13b koalpaca
    kullm stablelm-7b baize-7b gpt4-alpaca-7b vicuna-7b vicuna-7b-1-3 baize-13b vicuna-13b
    vicuna-13b-1-3 gpt4-alpaca-13b stable-vicuna-13b starchat-15b starchat-beta-15b
    llama-deus-7b evolinstruct-vicuna-7b evolinstruct-vicuna-13b guanaco-7b guanaco-13b
    guanaco-33b vicuna-33b-1-3 falcon-7b falcon-40b wizard-falcon-7b wizard-falcon-40b
    nous-hermes-13b nous-hermes-13b-llama2 nous-hermes-7b-llama2 airoboros-7b airoboros-13b
    samantha-7b samantha-13b samantha-33b lazarus-30b chronos-13b chronos-33b wizardlm-13b-1-2
    wizardlm-13b wizardlm-30b wizard-vicuna-13b wizard-vicuna-30b wizard-coder-15b openllama-7b
    openllama-13b orcamini-7b orcamini-13b xgen-7b llama2-7b llama2-13b upstage-llama-30b
    upstage-llama2-70b upstage-llama2-70b-2 stable-beluga2-70b nous-puffin-13b-llama2
    platypus2-70b wizardlm-70b llama2-70b orcamini-70b godzilla-70b nous-hermes-70b samantha-70b
    codellama-7b codellama-13b codellama-34b mistral-7b zephyr-7b mistral-trismegistus-7b
    hermes-trismegistus-7b mistral-openherems-2-5-7b
"""


@pytest.mark.parametrize("name", names(kind="chat"))
def test_every_preset_has_the_facts_that_a_user_needs(name: str) -> None:
    preset = find(name)
    assert preset.title and preset.licence != "unknown" and preset.parameters > 1e8
    assert preset.architecture and preset.context.tokens
    assert preset.sampling_source and preset.format.source
    assert "TODO" not in preset.notes
    assert all(find(alias) == preset for alias in preset.aliases)


@pytest.mark.parametrize("name", names(kind="chat"))
def test_the_notes_explain_why_a_preset_sends_single_turns(name: str) -> None:
    preset = find(name)
    single_turns = preset.context.policy == "last-n" and preset.context.turns == 1
    assert not single_turns or "single" in preset.notes


@pytest.mark.parametrize("name", formats())
def test_every_format_names_its_source(name: str) -> None:
    form = get_format(name)
    assert form.source
    assert form.is_written or name in ("template", "hunyuan")


@pytest.mark.parametrize("path", sorted((SHIPPED / "models").glob("*.toml")), ids=lambda p: p.stem)
def test_a_shipped_preset_passes_the_check_of_preset_files(path: Path) -> None:
    assert [mistake.text for mistake in check_preset(path) if mistake.fatal] == []


def test_no_two_presets_share_a_name() -> None:
    every = [name for preset in names().values() for name in (preset.name, *preset.aliases)]
    assert len(every) == len(set(every))


@pytest.mark.parametrize("name", LISTED.split())
def test_a_name_of_the_list_of_2023_finds_its_preset(name: str) -> None:
    # One name of the list is misspelt. The preset has the correct one, and the other still works.
    assert find(name).name == name.replace("openherems", "openhermes")


PROMISED = """
    alpaca-7b alpaca-13b alpaca-30b alpaca-65b gpt4-alpaca-7b gpt4-alpaca-13b gpt4-alpaca-30b
    stackllama-7b flan-alpaca-base flan-alpaca-large flan-alpaca-xl flan-alpaca-xxl chatyuan-v1
    chatyuan-v2 rwkv-raven-1b5 rwkv-raven-3b rwkv-raven-7b rwkv-raven-14b rwkv-world-1b5
    dolly-v1-6b dolly-v2-3b dolly-v2-7b dolly-v2-12b oasst-pythia-12b os-stablelm-7b stablelm-3b
    stablelm-7b koalpaca koala baize-7b baize-lora-7b guanaco-65b mpt-7b falcon-7b
    starchat-alpha vicuna-7b-v0 vicuna-7b vicuna-7b-1-3 vicuna-7b-1-5 llama2-7b llama2-70b
    llama-7b llama-65b smollm2 smollm2-1.7b smollm3-3b qwen2.5-0.5b qwen2.5-72b qwen3-0.6b
    qwen3-32b llama3.1-8b llama3.2-1b llama3.3-70b gemma2-2b gemma2-27b gemma3-270m gemma3-27b
    mistral-7b mistral-nemo mistral-small phi3-mini phi4 zephyr-7b zephyr-7b-beta
"""


@pytest.mark.parametrize("name", PROMISED.split())
def test_a_promised_name_finds_a_preset(name: str) -> None:
    assert find(name).name in names()


def test_an_alias_finds_the_same_preset() -> None:
    assert find("alpaca-13b") == find("alpaca-lora-13b")


def test_stackllama_applies_its_adapters_in_order() -> None:
    repos = [source.repo for source in find("stackllama").adapters]
    assert repos == ["trl-lib/llama-7b-se-peft", "trl-lib/llama-7b-se-rl-peft"]


DEAD = ("decapoda-research/", "elinas/llama-", "psmathur/", "trl-lib/llama-se-merged")


def test_no_preset_names_a_dead_repo() -> None:
    repos = [
        source.repo for preset in names().values() for source in (preset.base, *preset.adapters)
    ]
    assert not [repo for repo in repos if repo.startswith(DEAD)]


@pytest.mark.parametrize(
    ("name", "ids"),
    [
        ("dolly-v2-12b", {50277}),
        ("koalpaca", {2}),
        ("starchat-beta", {49155}),
        ("gemma3-1b", {1, 106}),
        ("gemma2-2b", {1, 107}),
        ("llama3.1-8b", {128001, 128008, 128009}),
        ("mpt-7b", {50278, 0}),
        ("alpaca-13b", {0}),
        ("gpt4-alpaca-7b", {0}),
        ("falcon-7b", {11}),
        ("stablelm-7b", {50277, 50278, 50279, 1, 0}),
        ("qwen3-8b", {151645, 151643}),
        ("phi3-mini", {32000, 32001, 32007}),
    ],
)
def test_token_ids_that_end_an_answer_beyond_the_config(name: str, ids: set[int]) -> None:
    assert ids <= set(find(name).stop_ids)


def test_token_ids_belong_to_presets_never_to_formats() -> None:
    """Id 0 ends answers of early Alpaca adapters; in Qwen's vocabulary it is `!`."""
    assert not [name for name in formats() if get_format(name).stop_ids]


@pytest.mark.parametrize(
    ("memories", "fits"),
    [
        ([24 << 30], "int8"),
        ([5 << 30], "int4"),
        ([2 << 30], "no"),
        # The largest memory counts: a GPU's or the machine's.
        ([2 << 30, 9 << 30], "int8"),
    ],
)
def test_the_weights_that_fit_are_estimated_from_the_parameters(
    memories: list[int], fits: str
) -> None:
    estimate = estimate_fit(find("llama-7b"), memories)
    assert estimate.fits == fits
    assert round(estimate.download / 1e9, 1) == 13.5


def test_the_size_of_a_wheel_is_known_exactly() -> None:
    archive = find("smollm2").base.archive
    assert archive and estimate_fit(find("smollm2"), [4 << 30]).download == archive.size


def test_without_parameters_or_support_nothing_is_estimated() -> None:
    assert estimate_fit(find("xgen-7b"), [1 << 40]).fits == "unsupported"
    no_parameters = replace(find("llama-7b"), parameters=0)
    assert estimate_fit(no_parameters, [1 << 40]).fits == "unknown"


def test_models_are_named_by_preset_repo_folder_or_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find("Alpaca-13B").name == "alpaca-lora-13b"
    assert (find("org/model").base.kind, find("org/model").base.repo) == ("hub", "org/model")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    for name in ("model", "./model", str(tmp_path / "model")):
        assert find(name).base.repo == str(tmp_path / "model") and find(name).base.kind == "path"
    assert find("some.gguf").base.kind == "path"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("alpacca-13b", "`alpaca-13b`"),
        ("smolm2", "`smollm2`"),
        ("zzzzz", "`llmchat presets` lists the names"),
    ],
)
def test_an_unknown_name_gets_advice(name: str, hint: str) -> None:
    with pytest.raises(ModelNotFound, match=f"no model is called `{name}`") as refused:
        find(name)
    assert hint in refused.value.hint and refused.value.exit_code == 3


def own_preset(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "mine.toml").write_text(text)
    return folder


def test_a_users_preset_takes_precedence(tmp_path: Path) -> None:
    own = own_preset(
        tmp_path / "presets",
        'format = "vicuna"\naliases = ["smollm2"]\n[base]\nkind = "hub"\nrepo = "me/mine"\n',
    )
    assert find("mine", own).base.repo == "me/mine" == find("smollm2", own).base.repo
    assert "mine" in names(own) and "mine" not in names()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            'format = "alpaka"\n[base]\nkind = "hub"\nrepo = "a/b"\n',
            "no prompt format is called `alpaka`",
        ),
        ('colour = "red"\n[base]\nkind = "hub"\nrepo = "a/b"\n', "unknown field `colour`"),
        ('[base]\nkind = "ftp"\nrepo = "a/b"\n', r"Invalid enum value 'ftp' - at `\$\.base\.kind`"),
        (
            '[base]\nkind = "hub"\nrepo = "a/b"\n[sampling]\ntemperature = -1\n',
            r">= 0.*\$\.sampling\.temperature",
        ),
        ("[base\n", "is not valid TOML"),
    ],
)
def test_a_wrong_preset_names_the_file_and_the_key(text: str, line: str, tmp_path: Path) -> None:
    own = own_preset(tmp_path / line[:4].strip("[`"), text)
    with pytest.raises(UsageError, match=line):
        find("mine", own)


def test_options_replace_a_presets_values() -> None:
    shipped = find("alpaca-13b")
    options = Options(
        model="alpaca-13b", adapter="me/mine", base="llama-7b", format="vicuna", weights="bf16",
        context=512, policy="last-n", turns=2, temperature=0.0, top_k=5, system="Hi", revision="v1",
    )  # fmt: skip
    preset = preset_for(options)
    assert (preset.base.repo, preset.base.revision) == ("huggyllama/llama-7b", "v1")
    assert [adapter.repo for adapter in preset.adapters] == ["me/mine"]
    assert (preset.format.name, preset.weights, preset.system) == ("vicuna", "bf16", "Hi")
    context, sampling = preset.context, preset.sampling
    assert (context.tokens, context.policy, context.turns) == (512, "last-n", 2)
    assert (sampling.temperature, sampling.top_k) == (0.0, 5)
    assert sampling.top_p == shipped.sampling.top_p
    assert preset_for(Options(model="alpaca-13b", adapter="none")).adapters == ()


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (Options(temperature=-1.0), "temperature must be a number from 0 to 5, not `-1.0`"),
        (Options(top_p=2.0), "top_p must be a number above 0, up to 1, not `2.0`"),
        (Options(turns=0), "turns must be a whole number of 1 or more, not `0`"),
        (Options(adapter="nowhere"), "there is no adapter `nowhere`"),
        (Options(format="chatmll"), "no prompt format is called"),
    ],
)
def test_invalid_options_are_refused(options: Options, line: str) -> None:
    with pytest.raises(UsageError, match=line):
        preset_for(options)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a/b", ("a/b", 1.0)),
        ("a/b:0.5", ("a/b", 0.5)),
        ("./x:2", ("./x", 2.0)),
        ("none", ("none", 1.0)),
    ],
)
def test_an_adapter_may_carry_a_scale(text: str, parts: tuple[str, float]) -> None:
    assert split_scale(text) == parts


def test_an_adapter_option_sets_the_scale() -> None:
    assert preset_for(Options(adapter="org/name:0.25")).adapter_scale == 0.25
    assert preset_for(Options(adapter="off")).adapters == ()
    with pytest.raises(UsageError, match="invalid adapter scale 50"):
        split_scale("x:50")


def test_a_preset_can_contain_a_format(tmp_path: Path) -> None:
    text = """[base]
kind = "hub"
repo = "a/b"
[format]
stops = ["Q:"]
[format.parts]
user = "Q: {text}\\n"
cue = "A:"
labels = ["Q:", "A:"]
"""
    own = own_preset(tmp_path / "presets", text)
    assert find("mine", own).format.name == "mine" and find("mine", own).format.parts.cue == "A:"  # type: ignore[union-attr]
    assert check_preset(own / "mine.toml", own) == []


MISTAKES = """title = "Mine"
colour = "red"
weights = "int7"
format = "alpaka"
parameters = -4
notes = \"\"\"
turns = 3
\"\"\"

[base]
kind = "ftp"
repo = "nothing"

[[adapters]]
kind = "hub"
repo = "a/b"

[[adapters]]
kind = "hub"
repo = "ab"

[context]
turns = 4

[sampling]
temperature = "hot"
top_q = 3
"""


def test_every_mistake_is_reported_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MISTAKES)
    found = {(one.line, one.text.split("`")[1], one.fatal) for one in check_preset(path)}
    assert found == {
        (2, "colour", True), (3, "weights", True), (4, "alpaka", True), (5, "parameters", True),
        (11, "base.kind", True), (20, "ab", True), (23, "context.turns", False),
        (26, "sampling.temperature", True), (27, "sampling.top_q", True),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("[base\n", 1, "invalid TOML"),
        ('title = "x"\n', 0, "`base` is missing"),
        ('[base]\nkind = "hub"\n', 1, "`base.repo` is missing"),
        ('[base]\nkind = "path"\nrepo = "/nowhere/at/all"\n', 3, "there is no folder or file"),
        (
            '[base]\nkind = "hub"\nrepo = "a/b"\n[format.parts]\nuser = "x"\nlabels = ["U"]\n',
            5,
            "no {text}",
        ),
        (
            '[base]\nkind = "hub"\nrepo = "a/b"\n[format]\nname = "x"\n',
            4,
            "requires `parts` or a `template`",
        ),
        (
            '[base]\nkind = "hub"\nrepo = "a/b"\n'
            '[format.parts]\nuser = "{text}"\ncue = "{input}"\n',
            6,
            "is not replaced",
        ),
        ('base = { kind = "hub", repo = "ab" }\n', 1, "invalid Hub repo"),
    ],
)
def test_mistakes_of_other_kinds(text: str, line: int, words: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    assert any(
        one.line == line and words in one.text and one.fatal for one in check_preset(path)
    ), check_preset(path)


TESTED = [name for name, preset in names().items() if preset.tested]
RAN = re.compile(
    r"(January|February|March|April|May|June|July|August|September|October|November"
    r"|December) 20\d\d[:,] .{20,}"
)


@pytest.mark.parametrize("name", TESTED)
def test_tested_gives_the_month_and_what_was_run(name: str) -> None:
    assert RAN.match(find(name).tested)


def test_the_default_model_was_run() -> None:
    assert find(Options().model).name in TESTED


@pytest.mark.parametrize("name", names())
def test_notes_leave_to_tested_whether_a_model_was_run(name: str) -> None:
    """Running a model with its published weights then changes one line of its file."""
    notes = find(name).notes
    assert not re.search(r"(?i)not yet run|\b(was|were|been) (never |not )?(run|tested)\b", notes)


STRUCTURED = """
format = "chatml"
[base]
kind = "path"
repo = "/"
[sampling]
temperature = 0.5
{structure}
"""


def preset_with(folder: Path, structure: str) -> Path:
    file = folder / "mine.toml"
    file.write_text(STRUCTURED.format(structure=structure))
    return file


@pytest.mark.parametrize(
    ("written", "structure"),
    [
        ('structure = "choice yes no"', Structure("choice", '["yes", "no"]')),
        ('structure = "regex [a-z]+"', Structure("regex", "[a-z]+")),
        ('structure = "grammar g.lark"', Structure("grammar", 'start: "x"')),
        ('structure = "off"', None),
        ('structure = {kind = "choice", source = \'["a"]\'}', Structure("choice", '["a"]')),
        ('[sampling.structure]\nkind = "schema"\nsource = "{}"', Structure("schema", "{}")),
    ],
)
def test_preset_carries_a_structure(
    tmp_path: Path, written: str, structure: Structure | None
) -> None:
    (tmp_path / "g.lark").write_text('start: "x"')
    file = preset_with(tmp_path, written)
    assert check_preset(file, tmp_path) == []
    assert find("mine", tmp_path).sampling.structure == structure


@pytest.mark.parametrize(
    ("written", "mistake"),
    [
        ('structure = "name strr"', "`sampling.structure`: the field `name` has the unknown type"),
        (
            'structure = {kind = "choice", source = "[]"}',
            "`sampling.structure`: there is no choice",
        ),
        ('structure = {kind = "regexp"}', "`sampling.structure.kind`: invalid enum value"),
        ("structure = 7", "`sampling.structure`: expected"),
        ('structure = {kind = "json", size = 1}', "there is no key `sampling.structure.size`"),
    ],
)
def test_malformed_structure_of_a_preset_is_a_mistake_with_its_line(
    tmp_path: Path, written: str, mistake: str
) -> None:
    file = preset_with(tmp_path, written)
    found = check_preset(file, tmp_path)
    assert [one.line for one in found] == [8] and found[0].text.startswith(mistake)
    with pytest.raises(UsageError, match="mine"):
        find("mine", tmp_path)


def test_a_preset_of_a_gguf_file_is_estimated_by_its_quantisation() -> None:
    preset = find("qwen2.5-coder-1.5b-gguf")
    assert (
        preset.base.variant == "Q4_K_M" and preset_for(Options(model=preset.name)).engine == "auto"
    )
    estimate = estimate_fit(preset, [2_000_000_000])
    assert (estimate.fits, estimate.download) == ("Q4_K_M", int(preset.parameters * 4.85 / 8))
    assert estimate_fit(preset, [1_000_000_000]).fits == "no"
