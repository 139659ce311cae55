"""Write the files that `vllm serve` needs, an example request, Docker Compose and Ray Serve."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from llmchat.deploy.facts import ServedModel
from llmchat.deploy.sizing import Layout
from llmchat.deploy.template_writer import jinja_template
from llmchat.deploy.vllm import VERSION, Request, command, engine_arguments
from llmchat.engines.tokenizer.save import save_tokenizer
from llmchat.errors import Mismatch

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
# Where Compose puts the folder and a local checkpoint inside its container.
_MOUNT, _MODEL = "/llmchat", "/model"


def write_folder(models: Sequence[ServedModel], request: Request, folder: Path) -> None:
    """Write what every deployment needs.

    That is the template, the tokenizer, the generation config, an example request, and the adapters
    that are on this machine.
    """
    folder.mkdir(parents=True, exist_ok=True)
    first = models[0]
    (folder / "chat_template.jinja").write_text(template(first), "utf-8")
    # transformers 5 builds its own LLaMA tokenizer from the checkpoint's files, which writes no
    # space before the first word after <s>.
    save_tokenizer(first.base.folder, folder / "tokenizer")
    # Only token ids: vLLM ignores values that are transformers' defaults, so sampling is a flag.
    _write_json(folder / "generation_config.json", {"eos_token_id": list(first.end_ids)})
    _write_json(folder / "request.json", example_request(first))
    for served in models if request.lora else ():
        part = served.adapters[0]
        if part.here:
            target = folder / "adapters" / served.preset.name
            target.mkdir(parents=True, exist_ok=True)
            for name in ADAPTER_FILES:
                shutil.copyfile(part.folder / name, target / name)


def template(served: ServedModel) -> str:
    """The chat template of a preset: the checkpoint's own, or one written from its format.

    A written one contains the preset's system text and the tokenizer's opening token.
    """
    if served.format.template is not None:
        return served.format.template
    return jinja_template(
        served.format, bos=served.bos, system=served.preset.system, special=served.special
    )


def example_request(served: ServedModel) -> dict[str, Any]:
    """A body for /v1/chat/completions, with the stop strings, which a server cannot keep."""
    preset = served.preset
    stops = [*dict.fromkeys((*preset.format.stops, *preset.sampling.stops))]
    stops = [stop for stop in stops if stop not in served.special]
    body: dict[str, Any] = {
        "model": preset.name,
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
    }
    return (
        body
        | ({"stop": stops} if stops else {})
        | ({"max_tokens": preset.sampling.max_tokens} if preset.sampling.max_tokens else {})
    )


def compose(models: Sequence[ServedModel], request: Request, layout: Layout, folder: Path) -> str:
    """A Docker Compose file.

    It uses vLLM's image, its GPUs, the Hub's cache, our folder read-only, and the key from the
    environment.
    """
    first = models[0]
    model = request.model or (first.base.place if first.base.local else "")
    inside = replace(request, host="0.0.0.0", port=8000, model=_MODEL if model else "")
    volumes = [
        f"{folder.resolve()}:{_MOUNT}:ro",
        "${HF_HOME:-~/.cache/huggingface}:/root/.cache/huggingface",
    ]
    volumes += [f"{Path(model).resolve()}:{_MODEL}:ro"] if model else []
    probe = (
        "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=5)"
    )
    service = {
        "image": f"vllm/vllm-openai:v{VERSION}",
        "entrypoint": ["vllm"],
        # Compose reads $ in a value as the name of a variable; $$ is the sign itself.
        "command": [
            word.replace("$", "$$") for word in command(models, inside, layout, Path(_MOUNT))[1:]
        ],
        "ports": [f"{request.host}:{request.port}:8000"],
        "volumes": volumes,
        "environment": {
            "VLLM_API_KEY": "${VLLM_API_KEY:?set VLLM_API_KEY to a secret of your own}",
            "HF_TOKEN": "${HF_TOKEN:-}",
        },
        "ipc": "host",
        "restart": "unless-stopped",
        "deploy": {
            "resources": {
                "reservations": {
                    "devices": [{"driver": "nvidia", "count": layout.gpus, "capabilities": ["gpu"]}]
                }
            }
        },
        "healthcheck": {
            "test": ["CMD", "python3", "-c", probe],
            "interval": "30s",
            "timeout": "10s",
            "retries": 3,
            "start_period": "15m",
        },
    }
    return _yaml(
        {"services": {"vllm": service}},
        "docker compose up -d; VLLM_API_KEY must be set. Checked by structure, not run.",
    )


def ray_serve(
    models: Sequence[ServedModel],
    request: Request,
    layout: Layout,
    folder: Path,
    *,
    cpu: bool = False,
    copies: int = 4,
    streams: int = 32,
    store: str = "",
) -> str:
    """A Ray Serve config, for `serve run FILE` on a Ray cluster.

    cpu: a replica takes no GPU; copies: the most replicas; streams: the target number of requests
    per replica; store: the URL of the adapters, which Ray only fetches from s3://, gs:// or
    azure://. Raises Mismatch if it is needed and missing.
    """
    if request.flags:
        raise Mismatch(
            "--vllm-flags are for the `vllm` command, and a Ray Serve config has none",
            "edit engine_kwargs in the written file",
        )
    first = models[0]
    values = {
        name.replace("-", "_"): value
        for name, value in engine_arguments(models, request, layout, folder).items()
    }
    # Ray runs the copies itself, and its executor is always Ray's.
    for name in ("data_parallel_size", "distributed_executor_backend"):
        values.pop(name, None)
    values["chat_template"] = template(first)
    config: dict[str, Any] = {
        "model_loading_config": {
            "model_id": first.preset.name,
            "model_source": request.model or first.base.place,
        },
        "engine_kwargs": values,
        "deployment_config": {
            "autoscaling_config": {
                "min_replicas": 1,
                "max_replicas": copies,
                "target_ongoing_requests": streams,
            },
            "max_ongoing_requests": 2 * streams,
        },
    }
    if cpu:
        config["accelerator_config"] = {"kind": "cpu"}
    if request.lora:
        config["lora_config"] = _lora_config(models, store)
        config["model_loading_config"]["model_id"] = first.base.name
    application = {
        "name": "llmchat",
        "route_prefix": "/",
        "import_path": "ray.serve.llm:build_openai_app",
        "args": {"llm_configs": [config]},
    }
    # By default Ray listens on every address, and asks for no key.
    options = {"host": request.host, "port": request.port}
    note = _ray_note(models, request, folder, store)
    return _yaml({"http_options": options, "applications": [application]}, note)


def _lora_config(models: Sequence[ServedModel], store: str) -> dict[str, Any]:
    if not store.startswith(("s3://", "gs://", "abfss://", "azure://")):
        raise Mismatch(
            "Ray Serve loads adapters from s3://, gs://, abfss:// or azure:// alone",
            "--store names the place, or --merged",
        )
    return {
        "dynamic_lora_loading_path": store,
        "max_num_adapters_per_replica": max(4, len(models)),
    }


def _ray_note(models: Sequence[ServedModel], request: Request, folder: Path, store: str) -> str:
    """How to run the file, and the names that clients ask for."""
    note = f"serve run FILE, on a Ray cluster; {folder} must be there on every host."
    if not request.lora:
        return note
    base = models[0].base.name
    presets = [served.preset.name for served in models]
    names = " and ".join(f"{base}:{name} (from {store}/{name})" for name in presets)
    return f"{note} Ask for {names}."


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf-8")


def _yaml(value: dict[str, Any], note: str) -> str:
    import yaml  # type: ignore[import-untyped]

    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=140)
    return f"# Written by llmchat deploy, for vLLM {VERSION}. {note}\n{text}"
