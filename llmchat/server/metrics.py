"""Prometheus metrics: requests, tokens, queue, batch, time to first token, time per token."""

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

_FIRST_TEXT_BUCKETS = (0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5, 10, 30, 60)
_PER_TOKEN_BUCKETS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1, 2)
_BATCH_BUCKETS = (0, 1, 2, 4, 8, 16, 32, 64)
_MODEL = ("model",)


class Metrics:
    """The metrics of one server, in a registry of its own: two servers in a process do not mix."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(namespace="llmchat", registry=self.registry)
        self.requests = self._counter(
            "llmchat_requests_total", "Requests by path and status.", ("path", "status")
        )
        self.prompt_tokens = self._counter("llmchat_prompt_tokens_total", "Tokens of prompts.")
        self.cached_tokens = self._counter(
            "llmchat_cached_tokens_total", "Tokens of prompts that were in a cache."
        )
        self.reply_tokens = self._counter("llmchat_reply_tokens_total", "Tokens of answers.")
        self.answers = self._counter(
            "llmchat_answers_total", "Answers by how they ended.", ("model", "reason")
        )
        self.loads = self._counter("llmchat_model_loads_total", "How often a model was loaded.")
        self.running = self._gauge("llmchat_answers_running", "Running answers: the batch size.")
        self.waiting = self._gauge("llmchat_answers_waiting", "Answers that wait for a slot.")
        self.models = self._gauge("llmchat_models_loaded", "Models in memory.", ())
        self.batch = self._histogram(
            "llmchat_batch_size", "Answers that got text in one step.", _BATCH_BUCKETS
        )
        self.first_text = self._histogram(
            "llmchat_time_to_first_token_seconds",
            "Time from the request to its first text.",
            _FIRST_TEXT_BUCKETS,
        )
        self.per_token = self._histogram(
            "llmchat_time_per_token_seconds",
            "Decoding time of an answer, divided by its tokens.",
            _PER_TOKEN_BUCKETS,
        )

    def _counter(self, name: str, text: str, labels: tuple[str, ...] = _MODEL) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, labels: tuple[str, ...] = _MODEL) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, text, _MODEL, buckets=buckets, registry=self.registry)

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self.registry)


class ModelMetrics:
    """The scheduler's SchedulerMetrics for one model."""

    def __init__(self, metrics: Metrics, model: str):
        self._running = metrics.running.labels(model)
        self._waiting = metrics.waiting.labels(model)
        self._first_text = metrics.first_text.labels(model)
        self._per_token = metrics.per_token.labels(model)
        self._batch = metrics.batch.labels(model)
        self._prompt_tokens = metrics.prompt_tokens.labels(model)
        self._cached_tokens = metrics.cached_tokens.labels(model)
        self._reply_tokens = metrics.reply_tokens.labels(model)
        # Created in advance, so that every reason is exported with 0 before its first answer.
        reasons = ("stop", "length", *get_args(UnfinishedReason))
        self._answers = {reason: metrics.answers.labels(model, reason) for reason in reasons}

    def set_load(self, running: int, waiting: int) -> None:
        self._running.set(running)
        self._waiting.set(waiting)

    def first_text(self, seconds: float) -> None:
        self._first_text.observe(seconds)

    def step_done(self, answers: int) -> None:
        self._batch.observe(answers)

    def unfinished(self, reason: UnfinishedReason) -> None:
        self._answers[reason].inc()

    def finished(self, finish: Finish) -> None:
        self._prompt_tokens.inc(finish.prompt_tokens)
        self._cached_tokens.inc(finish.cached_tokens)
        self._reply_tokens.inc(finish.reply_tokens)
        self._answers[finish.reason].inc()
        if finish.reply_tokens > 1:
            self._per_token.observe(finish.decode_s / (finish.reply_tokens - 1))
