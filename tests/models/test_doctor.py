"""`llmchat doctor` on good checkpoints, and on those that would answer wrongly."""

import json
from pathlib import Path

from support.checkpoints import CHATML, tiny_tokenizer

from llmchat.models.doctor import Report, examine, lines
from llmchat.presets import find, preset_for
from llmchat.settings import Options, World


def checkpoint(folder: Path, template: str | None = CHATML, **config: object) -> str:
    """A tokenizer and a config, no weights: all that the doctor reads."""
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    facts = {
        "architectures": ["LlamaForCausalLM"],
        "eos_token_id": [2, 4],
        "bos_token_id": 1,
        "max_position_embeddings": 256,
        "vocab_size": 320,
    }
    (folder / "config.json").write_text(json.dumps(facts | config))
    return str(folder)


def report(world: World, model: str, **options: object) -> Report:
    return examine(preset_for(Options(model=model, **options)), world)  # type: ignore[arg-type]


def told(found: Report, level: str) -> str:
    return "\n".join(f"{one.subject}: {one.text}" for one in found.findings if one.level == level)


def test_a_healthy_checkpoint(world: World, tmp_path: Path) -> None:
    found = report(world, checkpoint(tmp_path / "model"))
    assert found.healthy and not told(found, "problem")
    assert "end of answers: <|im_end|> (token 4) ends an answer" in told(found, "ok")
    assert "end of the prompt: " in told(found, "ok") and "token for token" in told(found, "ok")
    assert "template: the chat template of the checkpoint" in told(found, "ok")
    assert found.preview.startswith("<|im_start|>system\nBe brief.<|im_end|>\n")


def test_an_end_mark_that_is_not_a_stop_token_is_a_problem(world: World, tmp_path: Path) -> None:
    """A fault of fine-tunes: config and tokenizer do not name the token that ends answers."""
    found = report(world, checkpoint(tmp_path / "model", eos_token_id=2))
    assert not found.healthy
    assert (
        "end of answers: training ended answers with '<|im_end|>', which is not a stop token here"
        in told(found, "problem")
    )


def test_an_end_token_that_the_vocabulary_lacks(world: World, tmp_path: Path) -> None:
    assert "32000: not in this vocabulary" in told(
        report(world, checkpoint(tmp_path / "a", eos_token_id=[4, 32000])), "problem"
    )


def test_no_template_and_no_format(world: World, tmp_path: Path) -> None:
    found = report(world, checkpoint(tmp_path / "model", template=None))
    assert (
        not found.healthy
        and "has no chat template" in told(found, "problem")
        and "--format" in told(found, "problem")
    )


def test_a_window_larger_than_the_model(world: World, tmp_path: Path) -> None:
    model = checkpoint(tmp_path / "model")
    assert "window is 9,999 tokens, but the model holds 256" in told(
        report(world, model, context=9999), "problem"
    )
    assert "window is 100 tokens; the model holds 256" in told(
        report(world, model, context=100), "note"
    )


def test_two_opening_tokens_are_a_problem(world: World, tmp_path: Path) -> None:
    found = report(world, checkpoint(tmp_path / "model", template="{{ bos_token }}<s>" + CHATML))
    assert "opening token: <s>, twice" in told(found, "problem")


def test_a_template_that_asks_otherwise_than_it_records(world: World, tmp_path: Path) -> None:
    asks = CHATML.replace("<|im_start|>assistant\n", "<|im_start|>bot\n")
    assert asks != CHATML
    found = report(world, checkpoint(tmp_path / "model", template=asks))
    note = (
        "end of answers: the chat template of `template` writes an answer differently"
        " from the prompt that asks for it"
    )
    assert note in told(found, "note")


def test_a_format_beside_the_checkpoints_template(world: World, tmp_path: Path) -> None:
    model = checkpoint(tmp_path / "model")
    assert "own template: the checkpoint's chat template writes the same" in told(
        report(world, model, format="chatml"), "ok"
    )
    assert "own template: the checkpoint's chat template writes something else" in told(
        report(world, model, format="vicuna"), "note"
    )


def test_a_model_that_is_not_here_is_told_of_from_its_preset(world: World) -> None:
    found = examine(find("llama-7b"), world)
    assert (
        "not pulled" in told(found, "note")
        and "base model: yes" in told(found, "note")
        and "Human: And your friends?" in found.preview
    )
    assert "cannot run here: its tokenizer is Python code" in told(
        examine(find("xgen-7b"), world), "problem"
    )
    assert "each question is sent alone" in told(examine(find("dolly-v2-3b"), world), "note")


def test_the_default_model_is_healthy(smol_world: World) -> None:
    found = examine(find("smollm2"), smol_world)
    assert found.healthy and not told(found, "problem") and "2 <|im_end|>" in told(found, "ok")
    assert [line for line in lines(found) if line.startswith("ok      end of the prompt")]
