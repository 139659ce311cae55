"""Tiny random encoders, and their vectors as transformers computes them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import processors
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    Gemma3TextConfig,
    MPNetConfig,
    NomicBertConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
    XLMRobertaConfig,
)

from support.checkpoints import tiny_tokenizer

TEXTS = ["the quick brown fox", "a", "", "question and answer, the answer is here " * 4, "the fox"]
_SIZES = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
_CONFIGS: dict[str, Any] = {
    "bert": lambda: BertConfig(**_SIZES),
    "nomic_bert": lambda: NomicBertConfig(**_SIZES, pad_token_id=4),
    "qwen3": lambda: Qwen3Config(**_SIZES, num_key_value_heads=2, head_dim=16),
    "gemma3_text": lambda: Gemma3TextConfig(
        **_SIZES,
        num_key_value_heads=2,
        head_dim=16,
        sliding_window=8,
        layer_types=["sliding_attention", "full_attention"],
        use_bidirectional_attention=True,
        query_pre_attn_scalar=24,
    ),
    "mpnet": lambda: MPNetConfig(**_SIZES),
    "xlm-roberta": lambda: XLMRobertaConfig(**_SIZES, type_vocab_size=1, pad_token_id=4),
}


def save_encoder(folder: Path, kind: str) -> Path:
    """A checkpoint of random weights, large enough that a mistake shows in its vectors."""
    torch.manual_seed(0)
    model = AutoModel.from_config(_CONFIGS[kind]())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    model.save_pretrained(folder)
    _tokenizer().save_pretrained(folder)
    return folder


def _tokenizer(*, segments: bool = True) -> PreTrainedTokenizerFast:
    """The tiny tokenizer with marks around a text and between two."""
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> $B:1 </s>:1" if segments else "<s> $A </s> $B </s>",
        special_tokens=[("<s>", 1), ("</s>", 2)],
    )
    tokenizer.pad_token = "</s>"
    tokenizer.chat_template = None
    return tokenizer


def reference_vectors(
    folder: Path, texts: Sequence[str], longest: int, pooling: str, *, unit: bool = True
) -> torch.Tensor:
    """Each text alone through transformers, pooled. unit: of length 1."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    vectors = []
    for text in texts:
        ids = tokenizer(text, truncation=True, max_length=longest, return_tensors="pt").input_ids
        with torch.inference_mode():
            hidden = model(input_ids=ids).last_hidden_state[0]
        vectors.append({"mean": hidden.mean(0), "cls": hidden[0], "last": hidden[-1]}[pooling])
    found = torch.stack(vectors)
    return torch.nn.functional.normalize(found, dim=-1) if unit else found


def save_cross_encoder(folder: Path, kind: str) -> Path:
    """A classifier with one label, whose scores are spread over 0 to 1."""
    torch.manual_seed(1)
    config = _CONFIGS[kind]()
    config.num_labels = 1
    model = AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    model.save_pretrained(folder)
    _tokenizer(segments=kind == "bert").save_pretrained(folder)
    return folder


def reference_scores(folder: Path, question: str, passages: Sequence[str]) -> list[float]:
    """Each pair alone through transformers, cut to 24 tokens."""
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    scores = []
    for passage in passages:
        pair = tokenizer(
            question, passage, truncation=True, max_length=24,
            return_token_type_ids=True, return_tensors="pt",
        )  # fmt: skip
        with torch.inference_mode():
            scores.append(model(**pair).logits[0, 0].sigmoid().item())
    return scores


def publish_nomic(folder: Path) -> None:
    """Give the config of a Nomic BERT the keys of published checkpoints."""
    config = json.loads((folder / "config.json").read_text())
    theta = config.pop("rope_parameters")["rope_theta"]
    for new, old in (("n_embd", "hidden_size"), ("n_head", "num_attention_heads")):
        config[new] = config.pop(old)
    config |= {"n_layer": config.pop("num_hidden_layers"), "rotary_emb_base": theta}
    config |= {"activation_function": "swiglu", "prenorm": False}
    config.pop("hidden_act")
    (folder / "config.json").write_text(json.dumps(config))


def save_dense(folder: Path, inputs: int, outputs: int) -> None:
    """A dense layer without bias and activation, as EmbeddingGemma has two."""
    folder.mkdir()
    facts = {"in_features": inputs, "out_features": outputs, "bias": False,
             "activation_function": "torch.nn.modules.linear.Identity"}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(facts))
    save_file({"linear.weight": torch.randn(outputs, inputs)}, folder / "model.safetensors")


def save_sentence_transformer(folder: Path) -> Path:
    """A BERT with CLS pooling and a dense layer, in the layout of sentence-transformers."""
    save_encoder(folder, "bert")
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Dense": "Dense", "3_N": "Normalize"}
    steps = [
        {"idx": index, "name": str(index), "path": path, "type": _STEP.format(kind)}
        for index, (path, kind) in enumerate(kinds.items())
    ]
    dense = {"in_features": 32, "out_features": 16, "bias": True,
             "activation_function": "torch.nn.modules.activation.Tanh"}  # fmt: skip
    prompts = {"query": "ask: ", "document": "read: "}
    for name, table in {
        "modules.json": steps,
        "1_Pooling/config.json": {"word_embedding_dimension": 32, "pooling_mode_cls_token": True,
                                  "pooling_mode_mean_tokens": False},
        "2_Dense/config.json": dense,
        "sentence_bert_config.json": {"max_seq_length": 24},
        "config_sentence_transformers.json": {"prompts": prompts},
    }.items():  # fmt: skip
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(table))
    weights = {"linear.weight": torch.randn(16, 32), "linear.bias": torch.randn(16)}
    save_file(weights, folder / "2_Dense" / "model.safetensors")
    return folder


_STEP = "sentence_transformers.models.{}"
