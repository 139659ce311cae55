"""Tiny random encoders, and their vectors as transformers computes them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import processors
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    PreTrainedTokenizerFast,
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
    folder: Path, texts: Sequence[str], longest: int, pooling: str
) -> torch.Tensor:
    """Each text alone through transformers, pooled and of length 1."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    vectors = []
    for text in texts:
        ids = tokenizer(text, truncation=True, max_length=longest, return_tensors="pt").input_ids
        with torch.inference_mode():
            hidden = model(input_ids=ids).last_hidden_state[0]
        vectors.append({"mean": hidden.mean(0), "cls": hidden[0], "last": hidden[-1]}[pooling])
    return torch.nn.functional.normalize(torch.stack(vectors), dim=-1)


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
