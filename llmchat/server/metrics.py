"""What Prometheus is told: requests, tokens, queue, batch, and the two times a user feels (to the first token, and between tokens)."""

from typing import get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from llmchat.engines import Finish
from llmchat.server.scheduler import UnfinishedReason

_FIRST = (0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5, 10, 30, 60)
_BETWEEN = (0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1, 2)


class Metrics:
    """One registry a server, so that two in one process do not mix."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        into = self.registry
        self.requests = Counter(
            "llmchat_requests_total",
            "Requests by path and status.",
            ("path", "status"),
            registry=into,
        )
        self.prompt_tokens = Counter(
            "llmchat_prompt_tokens_total", "Tokens of prompts.", ("model",), registry=into
        )
        self.cached_tokens = Counter(
            "llmchat_cached_tokens_total",
            "Tokens of prompts that were in a cache.",
            ("model",),
            registry=into,
        )
        self.reply_tokens = Counter(
            "llmchat_reply_tokens_total", "Tokens of answers.", ("model",), registry=into
        )
        self.answers = Counter(
            "llmchat_answers_total",
            "Answers by how they ended.",
            ("model", "reason"),
            registry=into,
        )
        self.running = Gauge(
            "llmchat_answers_running",
            "Answers under way, which is the size of the batch.",
            ("model",),
            registry=into,
        )
        self.waiting = Gauge(
            "llmchat_answers_waiting", "Answers that wait for a slot.", ("model",), registry=into
        )
        self.batch = Histogram(
            "llmchat_batch_size",
            "Answers that got a token in one pass.",
            ("model",),
            buckets=(0, 1, 2, 4, 8, 16, 32, 64),
            registry=into,
        )
        self.first = Histogram(
            "llmchat_time_to_first_token_seconds",
            "From the request to its first text.",
            ("model",),
            buckets=_FIRST,
            registry=into,
        )
        self.between = Histogram(
            "llmchat_time_per_token_seconds",
            "Decoding time of an answer, by its tokens.",
            ("model",),
            buckets=_BETWEEN,
            registry=into,
        )
        self.models = Gauge("llmchat_models_loaded", "Models in memory.", registry=into)
        ProcessCollector(namespace="llmchat", registry=into)
        self.loads = Counter(
            "llmchat_model_loads_total", "How often a model was loaded.", ("model",), registry=into
        )

    def text(self) -> bytes:
        return generate_latest(self.registry)


class ModelMetrics:
    """The scheduler's SchedulerMetrics for one model."""

    def __init__(self, metrics: Metrics, model: str):
        self._running, self._waiting = metrics.running.labels(model), metrics.waiting.labels(model)
        self._first, self._between, self._batch = (
            metrics.first.labels(model),
            metrics.between.labels(model),
            metrics.batch.labels(model),
        )
        self._prompt, self._cached, self._reply = (
            counter.labels(model)
            for counter in (metrics.prompt_tokens, metrics.cached_tokens, metrics.reply_tokens)
        )
        self._ended = {
            reason: metrics.answers.labels(model, reason)
            for reason in ("stop", "length", "cancelled")
        }
        self._left = {
            reason: metrics.answers.labels(model, reason) for reason in get_args(UnfinishedReason)
        }

    def load(self, running: int, waiting: int) -> None:
        self._running.set(running)
        self._waiting.set(waiting)

    def first(self, seconds: float) -> None:
        self._first.observe(seconds)

    def passed(self, seconds: float, tokens: int) -> None:
        self._batch.observe(tokens)

    def left(self, reason: UnfinishedReason) -> None:
        self._left[reason].inc()

    def ended(self, finish: Finish) -> None:
        self._prompt.inc(finish.prompt_tokens)
        self._cached.inc(finish.cached_tokens)
        self._reply.inc(finish.reply_tokens)
        self._ended[finish.reason].inc()
        if finish.reply_tokens > 1:
            self._between.observe(finish.decode_s / (finish.reply_tokens - 1))
