"""LoRA training with peft and transformers' Trainer.

The Trainer brings accelerate: several GPUs, FSDP and DeepSpeed. This package adds the batches
(left-padded rows of similar length), the loss (logits only for the answers), and recovery from a
full memory or a kill. A run with the same settings resumes from its last checkpoint.
"""

import dataclasses
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import peft
import torch
from msgspec import Struct
from torch import nn
from transformers import AutoModelForCausalLM, EarlyStoppingCallback, Trainer, TrainingArguments
from transformers.utils import logging

from llmchat.engines.checkpoint_files import read_json
from llmchat.engines.transformers.plain_checkpoint import plain_checkpoint
from llmchat.engines.transformers.pytorch.products import product_dtype
from llmchat.engines.transformers.weights import open_tensors
from llmchat.errors import Mismatch, OutOfResources
from llmchat.finetune.examples import Example
from llmchat.finetune.loss_plot import curve_of
from llmchat.finetune.recipes import Recipe
from llmchat.finetune.training.batches import Collator, LengthGrouped, loss_of, rows_of
from llmchat.finetune.training.meter import Meter
from llmchat.finetune.types import Trained
from llmchat.memory_estimate import installed_ram, weights

__all__ = ["Course", "Meter", "Trained", "last_checkpoint", "train"]

# How often a run is evaluated and saved, at most once per step.
_EVALUATIONS = 10
# Up to this length, attention written out is faster on a CPU than the fused kernel, whose backward
# pass is slow there (docs/log.md).
_SHORT = 512
# Both kinds of four bits are trained on as NF4 (QLoRA).
_QUANTISED = ("int8", "int4", "nf4")
_SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}


class Course(Struct, frozen=True):
    """A training course: the base with its own adapters, the examples, the recipe and the output.

    base_name: the name of the base in the adapter's config, so that others can find it.
    """

    base: Path
    adapters: tuple[Path, ...]
    base_name: str
    train: list[Example]
    held_out: list[Example]
    recipe: Recipe
    output: Path
    cpu: bool = False
    report_to: tuple[str, ...] = ()


def train(course: Course, meter: Meter) -> Trained:
    """Train, and leave the best adapter in `output`/adapter.

    If memory runs out, the micro-batch is halved and training continues.
    """
    micro = course.recipe.micro_batch
    while True:
        try:
            return _train(course, micro, meter)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not _is_memory(error):
                raise
            if micro == 1:
                raise OutOfResources(
                    "memory ran out with one record at a time",
                    "a smaller --cutoff, --base-weights nf4 or --checkpointing needs less",
                ) from error
        micro //= 2
        _tidy()


def last_checkpoint(output: Path) -> Path | None:
    """The newest complete checkpoint; incomplete ones of a killed process are removed."""
    found = []
    for folder in (output / "checkpoints").glob("checkpoint-*"):
        if (
            (folder / "trainer_state.json").exists()
            and (folder / "optimizer.pt").exists()
            and (folder / "rng_state.pth").exists()
        ):
            found.append((int(folder.name.rpartition("-")[2]), folder))
        elif not any(folder.glob("rng_state_*.pth")):
            shutil.rmtree(folder, ignore_errors=True)
    return max(found)[1] if found else None


def _train(course: Course, micro: int, meter: Meter) -> Trained:
    recipe = course.recipe
    torch.manual_seed(recipe.seed)
    model = _tuned(course)
    trainer = _LengthTrainer(
        model=model,
        args=_arguments(course, micro),
        data_collator=Collator(model, pad=0),
        train_dataset=rows_of(course.train),
        eval_dataset=rows_of(course.held_out) or None,
        compute_loss_func=loss_of,
        callbacks=[
            meter,
            *(
                [EarlyStoppingCallback(recipe.patience)]
                if recipe.patience and course.held_out
                else []
            ),
        ],
    )
    trainer.recipe, trainer.meter = recipe, meter
    for unwanted in ("PrinterCallback", "ProgressCallback"):
        kind = next(
            (
                type(one)
                for one in trainer.callback_handler.callbacks
                if type(one).__name__ == unwanted
            ),
            None,
        )
        if kind:
            trainer.remove_callback(kind)
    checkpoint = last_checkpoint(course.output)
    result = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if trainer.is_world_process_zero():
        _save(trainer.model, course)
    state = trainer.state
    return Trained(
        steps=state.global_step,
        curve=tuple(curve_of(state.log_history)),
        best_loss=state.best_metric,
        seconds=float(result.metrics.get("train_runtime", 0.0)),
        tokens=meter.tokens,
        tokens_per_second=meter.tokens_per_second,
        micro_batch=micro,
        parameters=sum(
            parameter.numel() for parameter in model.parameters() if parameter.requires_grad
        ),
        stopped_early=state.global_step < state.max_steps,
    )


class _LengthTrainer(Trainer):
    """The Trainer with batches of similar length, in the same order when a run resumes."""

    recipe: Recipe
    meter: Meter

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        tokens, started = inputs.pop("tokens"), time.perf_counter()
        loss = super().training_step(model, inputs, num_items_in_batch)
        self.meter.worked(tokens, time.perf_counter() - started)
        return loss

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], *arguments: Any, **more: Any
    ) -> Any:
        inputs.pop("tokens")
        return super().prediction_step(model, inputs, *arguments, **more)

    def _get_train_sampler(self, train_dataset: Any = None) -> LengthGrouped:
        rows = lengths_of(self.train_dataset)
        return LengthGrouped(
            rows, self._train_batch_size, self.recipe.seed, self.recipe.group_by_length
        )


def lengths_of(rows: Sequence[dict[str, list[int]]]) -> list[int]:
    return [len(row["input_ids"]) for row in rows]


def _arguments(course: Course, micro: int) -> TrainingArguments:
    recipe, gpus = course.recipe, 0 if course.cpu else torch.cuda.device_count()
    accumulation = max(1, round(recipe.batch / (micro * _processes())))
    steps = recipe.max_steps or max(
        1, -(-len(course.train) // (micro * accumulation * _processes())) * recipe.epochs
    )
    every = max(1, int(steps) // _EVALUATIONS)
    evaluating = "steps" if course.held_out else "no"
    wanted = {
        "output_dir": str(course.output / "checkpoints"),
        "per_device_train_batch_size": micro,
        "per_device_eval_batch_size": micro,
        "gradient_accumulation_steps": accumulation,
        "num_train_epochs": recipe.epochs,
        "max_steps": recipe.max_steps or -1,
        "learning_rate": recipe.learning_rate,
        "lr_scheduler_type": _SCHEDULES[recipe.schedule],
        "warmup_steps": recipe.warmup_steps,
        "weight_decay": recipe.weight_decay,
        "optim": "adamw_torch",
        "bf16": _dtype(course) == torch.bfloat16,
        "gradient_checkpointing": recipe.checkpointing,
        "activation_checkpointing": recipe.checkpointing,
        "logging_steps": max(1, int(steps) // 100),
        "logging_first_step": True,
        # A loss that is not finite is reported as it is, not as the average before it.
        "logging_nan_inf_filter": False,
        "eval_strategy": evaluating,
        "eval_steps": every,
        "prediction_loss_only": True,
        "save_steps": every,
        "save_total_limit": 2,
        "load_best_model_at_end": bool(course.held_out),
        "metric_for_best_model": "eval_loss" if course.held_out else None,
        "greater_is_better": False if course.held_out else None,
        "remove_unused_columns": False,
        "dataloader_pin_memory": gpus > 0,
        "use_cpu": _on_cpu(course),
        "disable_tqdm": True,
        "report_to": list(course.report_to) or "none",
        "logging_dir": str(course.output / "logs"),
        "seed": recipe.seed,
    }
    known = {field.name for field in dataclasses.fields(TrainingArguments)}
    if "activation_checkpointing" in known:
        # The newer name of the same switch.
        known.discard("gradient_checkpointing")
    return TrainingArguments(**{name: value for name, value in wanted.items() if name in known})


def _tuned(course: Course) -> nn.Module:
    """The frozen base with new LoRA matrices."""
    recipe = course.recipe
    logging.disable_progress_bar()
    if read_json(course.base / "config.json").get("is_encoder_decoder"):
        raise Mismatch("this model is an encoder-decoder; llmchat fine-tunes only decoder models")
    with plain_checkpoint(course.base) as folder:
        model: Any = AutoModelForCausalLM.from_pretrained(folder, **_loading(course))
    if course.adapters:
        _merge(model, course)
    if recipe.base in _QUANTISED:
        model = peft.prepare_model_for_kbit_training(
            model, use_gradient_checkpointing=recipe.checkpointing
        )
    elif recipe.checkpointing:
        model.enable_input_require_grads()
    targets = recipe.targets if isinstance(recipe.targets, str) else list(recipe.targets)
    config = peft.LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        target_modules=targets,
        use_rslora=recipe.rslora,
        use_dora=recipe.dora,
        task_type="CAUSAL_LM",
    )
    try:
        tuned: nn.Module = peft.get_peft_model(model, config)
    except ValueError as error:
        linears = sorted(
            {
                name.rpartition(".")[2]
                for name, module in model.named_modules()
                if isinstance(module, nn.Linear)
            }
            - {"lm_head"}
        )
        raise Mismatch(
            f"this model has no linear layers named {recipe.targets}",
            f"it has {', '.join(linears)}; or --targets all-linear",
        ) from error
    return tuned


def _loading(course: Course) -> dict[str, Any]:
    recipe, cpu, dtype = course.recipe, _on_cpu(course), _dtype(course)
    options: dict[str, Any] = {"dtype": dtype}
    if cpu and max(len(example.ids) for example in (*course.train, *course.held_out)) <= _SHORT:
        options["attn_implementation"] = "eager"
    if recipe.base in _QUANTISED:
        from transformers import BitsAndBytesConfig

        four = recipe.base != "int8"
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_8bit=not four,
            load_in_4bit=four,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=dtype,
        )
        options["device_map"] = "cpu" if cpu else {"": torch.cuda.current_device()}
    return options


def _dtype(course: Course) -> torch.dtype:
    """The type of products, and of the weights that are not quantised.

    On a CPU that `product_dtype` gives fp32, a bf16 base is loaded as fp32 if it then takes at most
    half of the memory. It depends on nothing that changes between a run and its resumption.
    """
    if course.recipe.base == "fp32":
        return torch.float32
    if not _on_cpu(course):
        return torch.bfloat16
    if course.recipe.base not in _QUANTISED:
        shapes = open_tensors(course.base, ()).shapes
        if weights(shapes, "fp32") > installed_ram() / 2:
            return torch.bfloat16
    return product_dtype(torch.device("cpu"), torch.bfloat16)


def _on_cpu(course: Course) -> bool:
    return course.cpu or not torch.cuda.is_available()


def _merge(model: Any, course: Course) -> None:
    """Merge the base's own adapters into its weights; the new one is trained on top of them."""
    if course.recipe.base in _QUANTISED:
        raise Mismatch(
            f"a base with adapters is trained as bf16, not as {course.recipe.base}",
            "--base-weights bf16, or --adapter none",
        )
    tensors = open_tensors(course.base, course.adapters)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in tensors.shapes:
                parameter.copy_(tensors.get(name))


def _save(model: Any, course: Course) -> None:
    """Save only the adapter, in peft's form. Its config has the public name of the base."""
    folder = course.output / "adapter"
    model.save_pretrained(folder)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text("utf-8")) | {"base_model_name_or_path": course.base_name}
    path.write_text(json.dumps(config, indent=2, sort_keys=True), "utf-8")
    (folder / "README.md").unlink(missing_ok=True)


def _processes() -> int:
    from accelerate import PartialState

    return int(PartialState().num_processes)


def _is_memory(error: BaseException) -> bool:
    words = ("out of memory", "can't allocate memory", "DefaultCPUAllocator")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        word in str(error) for word in words
    )


def _tidy() -> None:
    import gc

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
