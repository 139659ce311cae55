"""The engine of another machine: what is sent to which server, and what is made of its answer."""

import json
from collections.abc import Iterable
from contextlib import closing
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.openai_server import App, Asked, Told, json_of, said, serving, sse

from llmchat.conversation import Conversation, Message
from llmchat.engines import Chunk, Finish, Sampling
from llmchat.engines.openai_api import OpenAIEngine
from llmchat.engines.openai_api.connection import Connection
from llmchat.engines.openai_api.dialects import dialect_of, dropped, sampling_fields
from llmchat.engines.openai_api.messages import defused, text_of
from llmchat.engines.openai_api.server_models import ASSUMED_CONTEXT, Served, find_served
from llmchat.engines.openai_api.token_counts import Estimate
from llmchat.errors import ContextOverflow, LlmchatError, ModelNotFound, NetworkError, UsageError
from llmchat.presets import get_format
from llmchat.prompt import Prompt

ASKED = Prompt("Q: hi\nA:", (Message("user", "hi"),), stops=("Q:",), quoted=((3, 5),))
GREEDY = Sampling(temperature=0, max_tokens=9, seed=3)


def models(*entries: dict[str, Any]) -> Told:
    return json_of({"object": "list", "data": list(entries)})


def answering(
    *pieces: bytes,
    owner: str = "",
    cut: bool = False,
    kind: str = "text/event-stream",
    **entry: Any,
) -> App:
    """A server with one model that gives one answer, and counts nothing."""

    def app(asked: Asked) -> Told:
        if asked.path == "/v1/models":
            return models({"id": "m", "owned_by": owner, **entry})
        if "completions" in asked.path:
            return Told(pieces, kind=kind, cut=cut)
        return json_of({"error": {"message": "no such path"}}, 404)

    return app


def engine_at(url: str, *, chat: bool = True, **options: Any) -> OpenAIEngine:
    connection = Connection(url, wait=lambda seconds: None)
    return OpenAIEngine(connection, find_served(connection, (), only=True), chat=chat, **options)


def answer(
    app: App, prompt: Prompt = ASKED, sampling: Sampling = GREEDY, *, chat: bool = True
) -> tuple[list[str], Finish, list[Asked]]:
    with (
        serving(app) as (url, asked),
        closing(engine_at(url, chat=chat).stream(prompt, sampling)) as stream,
    ):
        *chunks, finish = stream
    assert isinstance(finish, Finish)
    return [chunk.text for chunk in chunks if isinstance(chunk, Chunk)], finish, asked


USAGE = {
    "choices": [],
    "usage": {
        "prompt_tokens": 5,
        "completion_tokens": 2,
        "prompt_tokens_details": {"cached_tokens": 4},
    },
}


@pytest.mark.parametrize("chat", [True, False])
def test_an_answer_and_its_numbers(chat: bool) -> None:
    texts, finish, asked = answer(
        answering(*sse(said("He"), said("llo"), said("", "stop"), USAGE)), chat=chat
    )
    assert texts == ["He", "llo"]
    assert (
        finish.reason,
        finish.prompt_tokens,
        finish.cached_tokens,
        finish.reply_tokens,
        finish.seed,
    ) == ("stop", 5, 4, 2, 3)
    assert asked[-1].path == ("/v1/chat/completions" if chat else "/v1/completions")
    assert asked[-1].body["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([b": wait\n\n", *sse(said("a")), b""], "a"),
        (sse(said("a"), said("b", "stop"), done=False), "ab"),
        (sse(said("a"), said("b")), "ab"),
        ([b"data: " + json.dumps(said("a")).encode() + b"\r\n\r\ndata: [DONE]\r\n\r\n"], "a"),
        (["data: {\"choices\":\n", "data: [{\"text\": \"a\", \"delta\":{\"content\":\"a\"}}]}\n\n",
            "data: [DONE]\n\n"], "a"),
        (sse({"choices": []}, said("a"), {"id": 1}, said("", "stop")), "a"),
        (sse({"choices": [{"delta": {"role": "assistant", "content": None}}]}, said("a", "stop")),
            "a"),
        (sse(said("\ud83e"), said("\udd8a"), said("!", "stop")), "🦊!"),
        (sse(said("a\ud83e"), said("b", "stop")), "a\ufffdb"),
        (sse(said("a\ud83e", "stop")), "a\ufffd"),
        (sse(said("line\u2028end", "stop")), "line\u2028end"),
    ],
)  # fmt: skip
def test_streams_of_all_kinds_are_read(pieces: list[Any], expected: str) -> None:
    whole = [piece if isinstance(piece, bytes) else piece.encode() for piece in pieces if piece]
    texts, finish, _ = answer(answering(*whole))
    assert "".join(texts) == expected and finish.reason == "stop"
    "".join(texts).encode()


@given(st.text(st.characters(exclude_categories=[]), max_size=12), st.data())
def test_halves_of_characters_never_come_out(text: str, data: st.DataObject) -> None:
    """A text as UTF-16 has it, cut anywhere between its units."""
    from llmchat.engines.openai_api.stream_parser import StreamParser

    units = text.encode("utf-16-le", "surrogatepass")
    cuts = sorted(
        {2 * data.draw(st.integers(0, len(units) // 2)) for _ in range(3)} | {0, len(units)}
    )
    pieces = [
        units[start:end].decode("utf-16-le", "surrogatepass") for start, end in pairwise(cuts)
    ]
    reading = StreamParser(Connection("http://localhost"))
    shown = "".join(reading.text("text/event-stream", iter(sse(*map(said, pieces)))))
    assert shown == units.decode("utf-16-le", "replace")


def test_a_server_that_does_not_stream_is_read_too() -> None:
    body = {
        "choices": [{"message": {"content": "all at once"}, "finish_reason": "length"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 3},
    }
    texts, finish, _ = answer(answering(json.dumps(body).encode(), kind="application/json"))
    assert (texts, finish.reason, finish.reply_tokens) == (["all at once"], "length", 3)


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_what_a_server_calls_reasoning_comes_between_the_marks_of_thought(field: str) -> None:
    def thought(text: str) -> dict[str, Any]:
        return {"choices": [{"delta": {field: text, "content": None}, "finish_reason": None}]}

    texts, _, _ = answer(
        answering(*sse(thought("hm"), thought("…"), said("yes"), said("", "stop")))
    )
    assert "".join(texts) == "<think>hm…</think>yes"
    texts, _, _ = answer(answering(*sse(thought("hm"), said("", "length"))))
    assert "".join(texts) == "<think>hm</think>"


@pytest.mark.parametrize(
    ("pieces", "cut", "words"),
    [
        (sse(said("He"), done=False), False, "ended the answer in the middle"),
        (sse(said("He"), done=False), True, "broke in the middle of the answer"),
        (sse(said("He"), {"error": {"message": "out of memory", "code": 500}}, done=False), False,
            "reports: out of memory"),
        ([*sse(said("He"), done=False), b"event: error\ndata: {\"message\": \"boom\"}\n\n"], False,
            "reports: boom"),
        ([*sse(said("He"), done=False), b"data: {oops\n\n"], False,
            "sent something else than an answer"),
    ],
)  # fmt: skip
def test_what_goes_wrong_after_the_first_word_is_told_and_not_tried_again(
    pieces: list[bytes], cut: bool, words: str
) -> None:
    with serving(answering(*pieces, cut=cut)) as (url, asked):
        stream = engine_at(url).stream(ASKED, GREEDY)
        assert next(stream) == Chunk("He")
        with pytest.raises(NetworkError, match=words):
            list(stream)
        assert sum("completions" in request.path for request in asked) == 1


def test_a_busy_server_is_asked_again_before_the_first_word() -> None:
    left = [json_of({}, 429), json_of({}, 503)]

    def app(asked: Asked) -> Told:
        if "completions" in asked.path and left:
            return left.pop(0)
        return answering(*sse(said("Hello", "stop")))(asked)

    texts, _, asked = answer(app)
    assert texts == ["Hello"] and len(asked) == 4


def test_hanging_up_reaches_the_server() -> None:
    sent: list[int] = []

    def endless() -> Iterable[bytes]:
        for number in range(100_000):
            sent.append(number)
            yield from sse(said("word "), done=False)

    def app(asked: Asked) -> Told:
        return answering()(asked) if "completions" not in asked.path else Told(endless())

    with serving(app) as (url, _):
        stream = engine_at(url).stream(ASKED, GREEDY)
        next(stream)
        stream.close()
        with closing(engine_at(url).stream(Prompt("x", (), stops=("word word",)), GREEDY)) as again:
            *_, finish = again
    assert isinstance(finish, Finish) and finish.reason == "stop"
    assert len(sent) < 100_000, "the server was not heard to the end"


def body_for(
    owner: str, sampling: Sampling, prompt: Prompt = ASKED, *, chat: bool
) -> dict[str, Any]:
    engine = OpenAIEngine(
        Connection("http://localhost:1"), Served("m", dialect_of(owner, "localhost"), 99), chat=chat
    )
    return engine.request(prompt, sampling, 3)[1]


FULL = Sampling(
    temperature=0.5,
    top_p=0.9,
    top_k=40,
    min_p=0.1,
    repetition_penalty=1.2,
    max_tokens=7,
    ignore_eos=True,
)


OFF = {"frequency_penalty": 0, "presence_penalty": 0}
NO_DRY = {
    "dry_multiplier": 0,
    "dry_base": 1.75,
    "dry_allowed_length": 2,
    "dry_sequence_breakers": ("\n", ":", '"', "*"),
}


def test_each_server_is_told_what_it_knows_and_nothing_else() -> None:
    plain = {"temperature": 0.5, "top_p": 0.9, "max_tokens": 7}
    own = plain | OFF | {"top_k": 40, "min_p": 0.1, "ignore_eos": True, "logit_bias": {}}
    assert sampling_fields(FULL, dialect_of("vllm", "")) == own | {"repetition_penalty": 1.2}
    assert sampling_fields(FULL, dialect_of("llamacpp", "")) == own | NO_DRY | {
        "repeat_penalty": 1.2
    }
    assert sampling_fields(FULL, dialect_of("library", "")) == plain | OFF
    assert sampling_fields(FULL, dialect_of("", "")) == plain
    assert "max_completion_tokens" in sampling_fields(FULL, dialect_of("system", "api.openai.com"))
    assert dropped(FULL, dialect_of("vllm", "")) == ()
    assert dropped(FULL, dialect_of("library", "")) == (
        "top_k",
        "min_p",
        "repetition_penalty",
        "ignore_eos",
    )
    assert dropped(Sampling(), dialect_of("library", "")) == (), "what is off is not missed"


PENALISED = Sampling(
    logit_bias={5: -100.0}, frequency_penalty=0.5, presence_penalty=-1.0, dry_multiplier=0.8
)


@pytest.mark.parametrize(
    ("owner", "missing"),
    [
        ("llamacpp", ()),
        ("llmchat", ()),
        ("vllm", ("dry_multiplier",)),
        ("library", ("logit_bias", "dry_multiplier")),
        ("", ("dry_multiplier",)),
    ],
)
def test_penalties_are_sent_to_servers_that_have_them(owner: str, missing: tuple[str, ...]) -> None:
    dialect = dialect_of(owner, "")
    asked = {"logit_bias": {5: -100}, "frequency_penalty": 0.5, "presence_penalty": -1}
    asked["dry_multiplier"] = 0.8
    expected = {name: value for name, value in asked.items() if name not in missing}
    assert expected.items() <= sampling_fields(PENALISED, dialect).items()
    assert dropped(PENALISED, dialect) == missing
    assert not {*missing} & {*sampling_fields(PENALISED, dialect)}


def test_what_is_off_is_said_to_be_off() -> None:
    """Servers have defaults of their own: llama.cpp's top_k is 40, vLLM takes those of the
    checkpoint.
    """
    assert (
        sampling_fields(Sampling(), dialect_of("llamacpp", ""))["top_k"] == 0
        and sampling_fields(Sampling(), dialect_of("vllm", ""))["top_k"] == -1
    )
    for owner in ("llamacpp", "vllm"):
        sent = sampling_fields(Sampling(), dialect_of(owner, ""))
        assert sent["min_p"] == 0 and sent["top_p"] == 1


def test_settings_that_are_not_sent_are_told() -> None:
    with serving(answering(*sse(said("x", "stop")), owner="library")) as (url, _):
        engine = engine_at(url, name="mine")
        assert engine.describe() == f"mine on Ollama at {url[7:]} as m, tokens estimated"
        list(engine.stream(ASKED, FULL))
        assert engine.describe().endswith(", without top_k, min_p, repetition_penalty, ignore_eos")
        list(engine.stream(ASKED, GREEDY))
        assert "without" not in engine.describe()


def test_a_text_is_sent_as_it_is_and_messages_as_they_are() -> None:
    form = get_format("alpaca")
    prompt = form.render(Conversation().say("Name a fox.").spoken)
    text = body_for("vllm", GREEDY, prompt, chat=False)
    assert (
        text["prompt"] == prompt.text
        and text["stop"] == list(prompt.stops)
        and "messages" not in text
    )
    assert "add_special_tokens" not in text, "the server's tokenizer opens a text itself"
    chat = body_for("vllm", GREEDY, prompt, chat=True)
    assert chat["messages"] == [{"role": "user", "content": "Name a fox."}] and "prompt" not in chat


def test_stop_strings_are_as_many_as_the_server_takes_and_the_rest_is_done_here() -> None:
    prompt = Prompt("x", (), stops=tuple("abcdef"))
    assert body_for("", GREEDY, prompt, chat=False)["stop"] == ["a", "b", "c", "d"]
    assert "stop" not in body_for("llamacpp", GREEDY, prompt, chat=False)
    texts, finish, _ = answer(answering(*sse(said("12e"), said("45", "stop"))), prompt)
    assert (texts, finish.reason) == (["12"], "stop")


def test_stop_ids_go_to_servers_that_know_them() -> None:
    prompt = Prompt("x", (), stop_ids=(7,))
    assert body_for("vllm", GREEDY, prompt, chat=False)["stop_token_ids"] == [7]
    assert "stop_token_ids" not in body_for("", GREEDY, prompt, chat=False)


def test_going_on_with_an_answer() -> None:
    begun = Prompt("x", (Message("user", "hi"), Message("assistant", "Hel")))
    body = body_for("vllm", GREEDY, begun, chat=True)
    assert body["continue_final_message"] is True and body["add_generation_prompt"] is False
    with pytest.raises(UsageError, match="cannot continue an answer"):
        body_for("", GREEDY, begun, chat=True)
    assert "continue_final_message" not in body_for("", GREEDY, begun, chat=False)


def test_no_log_probabilities_are_invented() -> None:
    with pytest.raises(UsageError, match="log-probabilities"):
        body_for("vllm", Sampling(logprobs=2), chat=True)


@pytest.mark.parametrize(
    "token",
    [
        "<s>",
        "</s>",
        "<unk>",
        "<|im_end|>",
        "<|start_header_id|>",
        "<start_of_turn>",
        "<end_of_turn>",
        "<｜User｜>",
        "[INST]",
        "[/INST]",
        "<<SYS>>",
    ],
)
def test_no_message_can_pose_as_a_special_token(token: str) -> None:
    assert (
        token not in defused(f"say {token} now")
        and defused(f"say {token} now").replace("\u2060", "") == f"say {token} now"
    )
    prompt = Prompt(
        f"{token}say {token}{token}",
        (Message("user", f"say {token}"),),
        quoted=((len(token), 2 * len(token) + 4),),
    )
    sent = text_of(prompt)
    assert sent.count(token) == 2 and sent.startswith(token) and sent.endswith(token), (
        "those of the format stay"
    )
    body = body_for("vllm", GREEDY, prompt, chat=True)
    assert token not in body["messages"][0]["content"]


@given(st.text("ab <>|/s", max_size=20))
def test_what_is_harmless_is_not_changed(text: str) -> None:
    assert "\u2060" not in defused(text) or any(mark in text for mark in ("<s>", "</s>", "<|"))


LIST = [
    {"id": "llama3.2:latest", "owned_by": "library"},
    {"id": "org/Model-7B", "owned_by": "vllm"},
    {"id": "/m/x.gguf", "aliases": ["smol"]},
]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (["llama3.2"], "llama3.2:latest"),
        (["ORG/model-7b"], "org/Model-7B"),
        (["none", "smol"], "/m/x.gguf"),
        (["/m/x.gguf"], "/m/x.gguf"),
    ],
)
def test_a_model_is_found_by_any_of_its_names(wanted: list[str], found: str) -> None:
    with serving(lambda asked: models(*LIST)) as (url, _):
        assert find_served(Connection(url), wanted, only=True).name == found


def test_an_adapter_holds_what_its_base_holds() -> None:
    base, lora = (
        {"id": "b", "owned_by": "vllm", "max_model_len": 777},
        {"id": "l", "owned_by": "vllm", "parent": "b", "max_model_len": None},
    )
    with serving(lambda asked: models(base, lora)) as (url, _):
        found = find_served(Connection(url), ["l"], only=True)
    assert (found.name, found.context) == ("l", 777)


def test_a_name_that_is_not_there_lists_those_that_are() -> None:
    with serving(lambda asked: models(*LIST)) as (url, _):
        with pytest.raises(
            ModelNotFound,
            match=r"no model `llama32`; it serves llama3.2:latest, org/Model-7B, /m/x.gguf",
        ) as refused:
            find_served(Connection(url), ["llama32"], only=True)
        assert "llama3.2:latest" in refused.value.hint
        with pytest.raises(UsageError, match=r"serves llama3\.2:latest"):
            find_served(Connection(url), [""], only=True)
    with serving(lambda asked: models({"id": "m"})) as (url, _):
        assert find_served(Connection(url), [""], only=True).certain
        assert not find_served(Connection(url), ["alpaca"], only=True).certain
        with pytest.raises(ModelNotFound):
            find_served(Connection(url), ["alpaca"], only=False)
    with (
        serving(lambda asked: models()) as (url, _),
        pytest.raises(UsageError, match="serves no model"),
    ):
        find_served(Connection(url), [""], only=True)


def test_a_server_without_a_list_must_know_the_model_itself() -> None:
    with serving(lambda asked: json_of({}, 404)) as (url, _):
        assert find_served(Connection(url), ["any"], only=False).name == "any"
        with pytest.raises(UsageError):
            find_served(Connection(url), [""], only=True)
    with (
        serving(lambda asked: json_of({"hello": "world"})) as (url, _),
        pytest.raises(NetworkError, match="lists no models"),
    ):
        find_served(Connection(url), ["any"], only=False)


@pytest.mark.parametrize(
    ("entry", "more", "context"),
    [
        ({"id": "m", "owned_by": "vllm", "max_model_len": 777}, {}, 777),
        ({"id": "m", "owned_by": "llamacpp", "meta": {"n_ctx": 555, "n_ctx_train": 9999}}, {}, 555),
        (
            {"id": "m", "owned_by": "llamacpp", "meta": None},
            {"/props": {"default_generation_settings": {"n_ctx": 333}}},
            333,
        ),
        (
            {"id": "m", "owned_by": "library"},
            {"/api/ps": {"models": [{"model": "m", "context_length": 222}]}},
            222,
        ),
        ({"id": "m", "owned_by": "library"}, {"/api/ps": {"models": []}}, 0),
        ({"id": "m", "owned_by": "library"}, {}, 0),
        ({"id": "m"}, {}, 0),
    ],
)
def test_the_window_is_what_the_server_says(
    entry: dict[str, Any], more: dict[str, Any], context: int
) -> None:
    def app(asked: Asked) -> Told:
        if asked.path == "/v1/models":
            return models(entry)
        return json_of(more[asked.path]) if asked.path in more else json_of({}, 404)

    with serving(app) as (url, _):
        connection = Connection(url)
        served = find_served(connection, ["m"], only=True)
        assert served.context == context
        assert OpenAIEngine(connection, served, chat=True).context == (context or ASSUMED_CONTEXT)
        assert OpenAIEngine(connection, served, chat=True, context=111).context == (context or 111)


def test_tokens_are_counted_by_vllm() -> None:
    def app(asked: Asked) -> Told:
        if asked.path == "/tokenize":
            return json_of(
                {
                    "tokens": [1]
                    * (
                        len(asked.body["messages"])
                        if "messages" in asked.body
                        else len(asked.body["prompt"])
                    )
                }
            )
        return answering(owner="vllm", max_model_len=5)(asked)

    with serving(app) as (url, asked):
        text = engine_at(url, chat=False)
        assert (text.count("four"), len(text.encode(ASKED)), "estimated" in text.describe()) == (
            4,
            len(ASKED.text),
            False,
        )
        assert asked[-1].body == {"model": "m", "prompt": ASKED.text, "add_special_tokens": True}
        before = len(asked)
        text.count("four"), text.encode(ASKED)
        assert len(asked) == before, "what was counted is remembered"
        with pytest.raises(ContextOverflow, match=r"is 8 tokens; the model holds 5"):
            next(text.stream(ASKED, GREEDY))
        assert len(engine_at(url, chat=True).encode(ASKED)) == 1
        assert asked[-1].body["add_generation_prompt"] is True


def test_an_estimate_is_said_to_be_one_and_is_no_reason_to_refuse() -> None:
    with serving(answering(*sse(said("x", "stop")), owner="llamacpp", meta={"n_ctx": 2})) as (
        url,
        _,
    ):
        engine = engine_at(url, chat=False)
        assert "tokens estimated" in engine.describe()
        assert next(engine.stream(ASKED, GREEDY)) == Chunk("x")


def test_an_estimate_counts_words_signs_and_characters() -> None:
    count = Estimate().count
    assert [count(text) for text in ("", "fox", "the fox", "a fox!", "foxes and", "extraordinary",
        "日本", "🦊é", "a\n\nb", "    a", "2026")] == [
        0, 1, 2, 3, 2, 3, 2, 3, 4, 2, 4,
    ]  # fmt: skip
    assert Estimate().encode(ASKED) == [-1] * (count(ASKED.text) + 1), "and one that opens a text"


def test_an_error_at_the_start_is_one_line() -> None:
    def app(asked: Asked) -> Told:
        if "completions" in asked.path:
            return json_of(
                {"error": {"message": "This model's maximum context length is 10 tokens."}}, 400
            )
        return answering()(asked)

    with serving(app) as (url, _), pytest.raises(LlmchatError) as raised:
        list(engine_at(url).stream(ASKED, GREEDY))
    assert isinstance(raised.value, ContextOverflow) and "--context" in raised.value.hint
