"""A sampling parameter is written down once; everything else derives from the struct."""

import re
from pathlib import Path

import pytest
from typer.main import get_command

import llmchat
from llmchat.cli import app
from llmchat.presets import setting_names
from llmchat.server.api import ChatRequest, CompletionRequest
from llmchat.server.page import files
from llmchat.settings import Options
from llmchat.settings.sampling import DISTRIBUTION, PARAMETERS, SAMPLING_SETTINGS
from llmchat.settings.types import base_type, description, title

PACKAGE = Path(llmchat.__file__).parent

# What a new parameter touches: the struct, its effect, and its names in other programs.
NAMED = {"settings/sampling.py", "engines/parameter_names.py"}
SAMPLERS = {
    "engines/transformers/compiled/csrc/sampling.h",
    "engines/transformers/pytorch/sampler.py",
}
PENALTIES = {"engines/transformers/pytorch/penalties.py"}
DRY = {"engines/transformers/dry.py"}
# Files with a reason of their own to name a parameter.
OTHER_USES = {
    # OpenAI's API has a range of its own for it, and 0 there means greedy. Other APIs and the roles
    # of aichat have it in their own words.
    "top_p": {
        "server/api.py",
        "server/request_parsing.py",
        *(f"server/messages_api/{name}.py" for name in ("schema", "translation")),
        *(f"server/responses_api/{name}.py" for name in ("schema", "translation", "response_body")),
        "roles/importing/aichat.py",
    },
    # vLLM and SGLang turn it off with -1.
    "top_k": {"engines/openai_api/dialects.py", "server/messages_api/schema.py"},
    # A summary has a sampling of its own; vLLM reads it from a checkpoint's generation config.
    "repetition_penalty": {"summary.py", "deploy/vllm.py"},
    # Ids are checked before the prompt is read; llama.cpp takes pairs.
    "logit_bias": {
        "engines/transformers/engine.py",
        "engines/transformers/vocabulary.py",
        "engines/gguf/__init__.py",
    },
    # llama.cpp takes no empty list.
    "dry_sequence_breakers": {"engines/gguf/__init__.py"},
    # It turns DRY on.
    "dry_multiplier": {
        "engines/transformers/engine.py",
        "engines/transformers/pytorch/penalties.py",
    },
}


def effects(name: str) -> set[str]:
    if name in DISTRIBUTION:
        return SAMPLERS
    return DRY if name.startswith("dry_") else PENALTIES


def sources_naming(name: str) -> set[str]:
    word = re.compile(rf"\b{name}\b")
    sources = (
        path.relative_to(PACKAGE)
        for path in PACKAGE.rglob("*")
        if path.suffix in (".py", ".c", ".h", ".js") and "vendor" not in path.parts
    )
    return {
        source.as_posix()
        for source in sources
        if word.search((PACKAGE / source).read_text("utf-8"))
    }


# Every program that asks for greedy answers names the temperature.
@pytest.mark.parametrize("name", sorted({*PARAMETERS} - {"temperature"}))
def test_a_parameter_is_named_in_few_source_files(name: str) -> None:
    assert sources_naming(name) == NAMED | effects(name) | OTHER_USES.get(name, set())


@pytest.mark.parametrize("name", SAMPLING_SETTINGS)
def test_a_parameter_is_everywhere_a_setting_can_be_given(name: str) -> None:
    flags = {flag for option in get_command(app).commands["chat"].params for flag in option.opts}  # type: ignore[attr-defined]
    assert f"--{name.replace('_', '-')}" in flags
    assert name in Options.__struct_fields__, "the LLMCHAT_* variable and the config key"
    assert name in setting_names(), "`/set`"
    assert name in ChatRequest.model_fields
    # A text has no template that could ask for thinking.
    assert (name in CompletionRequest.model_fields) == (not name.startswith("think"))
    assert title(SAMPLING_SETTINGS[name]) and description(SAMPLING_SETTINGS[name])


def test_the_web_page_offers_every_parameter_that_is_a_number() -> None:
    script = files()["sampling.js"].content.decode()
    numbers = [one for one in PARAMETERS if base_type(SAMPLING_SETTINGS[one]) in (int, float)]
    assert re.findall(r'\["(\w+)"', script) == numbers


def test_the_c_sampler_has_the_fields_of_the_struct_in_their_order() -> None:
    source = (PACKAGE / "engines/transformers/compiled/csrc/sampling.h").read_text("utf-8")
    declared = re.search(r"typedef struct \{([^}]*)\} SamplingParams;", source)
    assert declared
    assert re.findall(r"(\w+);", declared[1]) == [*DISTRIBUTION, "point"]
