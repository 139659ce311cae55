"""OpenAI's client against a real server: with a tiny checkpoint, whose tokens are compared with
the engine's, and with the default model."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest
from support.checkpoints import save_adapter
from support.serving import CHATML, Running, model_spec, serving

from llmchat.conversation import Message
from llmchat.engines import Chunk, Engine, Sampling
from llmchat.engines.transformers import TransformersEngine
from llmchat.prompt import Prompt

HELLO = [{"role": "user", "content": "the quick brown fox"}]


def alone(engine: Engine, prompt: Prompt, sampling: Sampling) -> str:
    return "".join(
        event.text for event in engine.stream(prompt, sampling) if isinstance(event, Chunk)
    )


def test_models_are_listed_and_described(run: Running) -> None:
    assert [model.id for model in run.openai.models.list()] == [
        "tiny",
        "scripted",
        "tiny+one",
        "tiny+two",
    ]
    assert run.openai.models.retrieve("tiny+one").id == "tiny+one"
    described = run.http.get("/v1/models/scripted").json()
    assert (
        run.openai.chat.completions.create(model="scripted", messages=HELLO)
        and described["id"] == "scripted"
    )
    described = run.http.get("/v1/models/scripted").json()
    assert described["max_model_len"] == described["context_length"] == 2048
    with pytest.raises(openai.NotFoundError):
        run.openai.models.retrieve("none")


def test_a_complete_and_a_streamed_answer_are_equal(run: Running) -> None:
    whole = run.openai.chat.completions.create(model="scripted", messages=HELLO)
    assert (
        whole.choices[0].message.content == "Well, **yes**.\n\nAnd no."
        and whole.choices[0].finish_reason == "stop"
    )
    assert (
        whole.object == "chat.completion" and whole.model == "scripted" and whole.usage is not None
    )
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    pieces = list(
        run.openai.chat.completions.create(
            model="scripted", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
    )  # type: ignore[arg-type]
    assert (
        pieces[0].choices[0].delta.role == "assistant" and len({piece.id for piece in pieces}) == 1
    )
    assert (
        "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
        == whole.choices[0].message.content
    )
    assert [piece.choices[0].finish_reason for piece in pieces if piece.choices][-1] == "stop"
    assert (
        not pieces[-1].choices
        and pieces[-1].usage is not None
        and pieces[-1].usage.total_tokens == whole.usage.total_tokens
    )
    assert all(piece.usage is None for piece in pieces[:-1])


def test_greedy_text_equals_the_engines_output(run: Running, engine: Engine) -> None:
    prompt = CHATML.format.render((Message("user", HELLO[0]["content"]),))
    expected = alone(engine, prompt, Sampling(temperature=0, max_tokens=12)).strip()
    answer = run.openai.chat.completions.create(
        model="tiny", messages=HELLO, temperature=0, max_completion_tokens=12
    )  # type: ignore[arg-type]
    assert answer.choices[0].message.content == expected
    raw = run.openai.completions.create(
        model="tiny", prompt="the quick", temperature=0, max_tokens=9
    )
    assert raw.choices[0].text == alone(
        engine, Prompt("the quick", ()), Sampling(temperature=0, max_tokens=9)
    )
    assert raw.usage is not None and raw.usage.completion_tokens <= 9


def test_a_seed_reproduces_all_choices(run: Running) -> None:
    def texts(**more: object) -> list[str]:
        made = run.openai.completions.create(
            model="tiny", prompt="the", max_tokens=8, temperature=1.5, n=3, **more
        )  # type: ignore[call-overload]
        return [choice.text for choice in made.choices]

    assert texts(seed=7) == texts(seed=7) != texts(seed=8)
    assert len(set(texts(seed=7))) == 3, "each choice has a seed of its own"
    assert texts(seed=-5) == texts(seed=-5)


def test_stop_strings_end_the_answer_and_are_not_shown(run: Running) -> None:
    answer = run.openai.chat.completions.create(
        model="scripted", messages=HELLO, stop=["And", "nowhere"]
    )  # type: ignore[arg-type]
    assert (
        answer.choices[0].message.content == "Well, **yes**."
        and answer.choices[0].finish_reason == "stop"
    )
    assert (
        run.openai.completions.create(model="scripted", prompt="x", stop="yes", max_tokens=50)
        .choices[0]
        .text
        == "Well, **"
    )


def test_the_token_limit_is_reported_as_finish_reason(run: Running) -> None:
    answer = run.openai.chat.completions.create(model="scripted", messages=HELLO, max_tokens=2)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (
        "Well,",
        "length",
    )


def test_several_prompts_times_several_choices(run: Running) -> None:
    made = run.openai.completions.create(
        model="tiny", prompt=["the", "quick brown"], n=2, max_tokens=3, temperature=0, echo=True
    )
    assert [choice.index for choice in made.choices] == [0, 1, 2, 3]
    assert [choice.text.startswith("the") for choice in made.choices] == [True, True, False, False]
    assert made.choices[0].text == made.choices[1].text
    one = run.openai.completions.create(
        model="tiny", prompt="the", max_tokens=3, temperature=0
    ).usage
    two = run.openai.completions.create(
        model="tiny", prompt="quick brown", max_tokens=3, temperature=0
    ).usage
    assert (
        one
        and two
        and made.usage
        and made.usage.prompt_tokens == one.prompt_tokens + two.prompt_tokens
    )


def test_choices_of_a_stream_have_their_index(run: Running) -> None:
    texts = {0: "", 1: "", 2: ""}
    for piece in run.openai.chat.completions.create(
        model="scripted", messages=HELLO, n=3, stream=True
    ):
        texts[piece.choices[0].index] += piece.choices[0].delta.content or ""
    assert set(texts.values()) == {"Well, **yes**.\n\nAnd no."}


def test_log_probabilities_of_a_chat(run: Running) -> None:
    made = run.openai.chat.completions.create(
        model="tiny",
        messages=HELLO,
        temperature=0,
        max_tokens=5,
        logprobs=True,
        top_logprobs=3,  # type: ignore[arg-type]
    )
    described = made.choices[0].logprobs
    assert (
        described is not None
        and described.content is not None
        and made.usage is not None
        and 0 < len(described.content) <= made.usage.completion_tokens
    )
    for token in described.content:
        assert (
            len(token.top_logprobs) == 3
            and token.logprob == max(rival.logprob for rival in token.top_logprobs) <= 0
        )
        assert token.top_logprobs[0].token == token.token, "greedy takes the likeliest"
    assert (
        b"".join(bytes(token.bytes or ()) for token in described.content)
        .decode("utf-8", "replace")
        .strip()
        == made.choices[0].message.content
    )
    pieces = run.openai.chat.completions.create(
        model="tiny", messages=HELLO, temperature=0, max_tokens=5, logprobs=True, stream=True
    )  # type: ignore[arg-type]
    streamed = [
        token
        for piece in pieces
        if piece.choices[0].logprobs
        for token in piece.choices[0].logprobs.content or ()
    ]
    assert [token.token for token in streamed] == [token.token for token in described.content]
    assert [token.logprob for token in streamed] == pytest.approx(
        [token.logprob for token in described.content], abs=1e-4
    )


def test_log_probabilities_of_a_completion(run: Running) -> None:
    made = run.openai.completions.create(
        model="tiny", prompt="the", temperature=0, max_tokens=4, logprobs=2
    ).choices[0]
    described = made.logprobs
    assert (
        described is not None
        and described.tokens
        and described.token_logprobs
        and described.text_offset
        and described.top_logprobs
    )
    assert (
        "".join(described.tokens) == made.text
        and described.text_offset[0] == 0
        and described.text_offset[1] == len(described.tokens[0])
    )
    assert described.top_logprobs[0][described.tokens[0]] == described.token_logprobs[0]


def test_the_conversation_is_what_the_terminal_would_send(run: Running) -> None:
    messages = [
        {"role": "system", "content": "Be short."},
        {"role": "developer", "content": "And kind."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "Hello "}, {"type": "text", "text": "there"}],
        },
        {"role": "assistant", "content": "Hi."},
        {"role": "user", "content": "One."},
        {"role": "user", "content": "Two."},
    ]
    run.openai.chat.completions.create(model="scripted", messages=messages)
    engine = next(
        resident.engine for resident in run.state.pool.loaded_models() if resident.key == "scripted"
    )
    assert engine.prompts[-1].text == (  # type: ignore[attr-defined]
        "<|im_start|>system\nBe short.\n\nAnd kind.<|im_end|>\n"
        "<|im_start|>user\nHello there<|im_end|>\n<|im_start|>assistant\nHi.<|im_end|>\n"
        "<|im_start|>user\nOne.\n\nTwo.<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_started_answer_is_continued(run: Running) -> None:
    run.openai.chat.completions.create(
        model="scripted", messages=[*HELLO, {"role": "assistant", "content": "It is"}]
    )  # type: ignore[arg-type, list-item]
    engine = next(
        resident.engine for resident in run.state.pool.loaded_models() if resident.key == "scripted"
    )
    assert engine.prompts[-1].text.endswith("<|im_start|>assistant\nIt is")


def test_adapters_on_one_base_at_once(run: Running, tiny: Path, tmp_path: Path) -> None:
    def reply(model: str) -> str:
        return (
            run.openai.completions.create(
                model=model, prompt="the quick", temperature=0, max_tokens=10
            )
            .choices[0]
            .text
        )

    names = ["tiny", "tiny+one", "tiny+two"] * 3
    with ThreadPoolExecutor(9) as many:
        together = list(many.map(reply, names))
    assert len(set(together)) == 3 and together == [reply(name) for name in names]
    merged = TransformersEngine(
        tiny, [save_adapter(tmp_path / "one", tiny, seed=1)], weights="fp32"
    )
    assert reply("tiny+one") == alone(
        merged, Prompt("the quick", ()), Sampling(temperature=0, max_tokens=10)
    )
    assert sum(resident.key == "tiny" for resident in run.state.pool.loaded_models()) == 1


def test_turns_continue_from_the_cache(run: Running) -> None:
    first = run.openai.chat.completions.create(
        model="tiny", messages=HELLO, temperature=0, max_tokens=6
    )  # type: ignore[arg-type]
    talk = [
        *HELLO,
        {"role": "assistant", "content": first.choices[0].message.content},
        {"role": "user", "content": "more"},
    ]
    second = run.openai.chat.completions.create(
        model="tiny", messages=talk, temperature=0, max_tokens=6
    )  # type: ignore[arg-type]
    assert first.usage and second.usage and second.usage.prompt_tokens_details
    assert (second.usage.prompt_tokens_details.cached_tokens or 0) >= first.usage.prompt_tokens - 1


def test_messages_are_dropped_only_if_requested(run: Running) -> None:
    talk = [
        {"role": role, "content": f"{role} says some words about the fox"}
        for _ in range(12)
        for role in ("user", "assistant")
    ]
    asked = {
        "model": "tiny",
        "messages": [*talk, {"role": "user", "content": "last"}],
        "max_tokens": 5,
    }
    with pytest.raises(openai.BadRequestError):
        run.openai.chat.completions.create(**asked)  # type: ignore[call-overload]
    cut = run.openai.chat.completions.create(**asked, extra_body={"truncation": "auto"})
    assert 0 < cut.usage.prompt_tokens <= 251


def test_many_at_once_are_all_answered(run: Running, engine: Engine) -> None:
    prompts = [f"the fox number {number}" for number in range(24)]
    with ThreadPoolExecutor(12) as many:
        texts = list(
            many.map(
                lambda text: (
                    run.openai.completions.create(
                        model="tiny", prompt=text, temperature=0, max_tokens=8
                    )
                    .choices[0]
                    .text
                ),
                prompts,
            )
        )
    assert texts == [
        alone(engine, Prompt(text, ()), Sampling(temperature=0, max_tokens=8)) for text in prompts
    ]


def test_a_disconnect_ends_the_generation(run: Running) -> None:
    before = run.metric("llmchat_answers_total", model="tiny", reason="length")
    stream = run.openai.completions.create(
        model="tiny",
        prompt="the",
        temperature=0,
        max_tokens=200,
        stream=True,
        extra_body={"min_p": 0.0},
    )
    next(iter(stream))
    stream.close()
    gone = threading.Event()
    for _ in range(500):
        if run.scheduler("tiny").running == 0:
            gone.set()
            break
        gone.wait(0.01)
    assert (
        gone.is_set() and run.metric("llmchat_answers_total", model="tiny", reason="cancelled") >= 1
    )
    assert run.metric("llmchat_answers_total", model="tiny", reason="length") == before


def test_health_and_metrics(run: Running) -> None:
    assert run.http.get("/health").json() == {"status": "ok"}
    text = run.http.get("/metrics").text
    assert (
        'llmchat_reply_tokens_total{model="tiny"}' in text
        and 'llmchat_requests_total{path="/v1/models",status="200"}' in text
    )


@pytest.mark.slow
def test_the_default_model_answers(smol_world: object, tmp_path: Path) -> None:
    from llmchat.models.loading import load
    from llmchat.models.locate import locate
    from llmchat.presets import find
    from llmchat.settings import Options, World

    assert isinstance(smol_world, World)
    model = locate(find("smollm2"), smol_world)
    with (
        serving(
            {"smollm2": model_spec(lambda: load(model, Options()), model.preset)}, tmp_path
        ) as run,
        ThreadPoolExecutor(4) as many,
    ):

        def ask(country: str) -> str:
            messages = [{"role": "user", "content": f"What is the capital of {country}?"}]
            return (
                run.openai.chat.completions.create(
                    model="smollm2", messages=messages, max_tokens=16
                )
                .choices[0]
                .message.content
                or ""
            )  # type: ignore[arg-type]

        countries = ("France", "Italy", "Japan", "Spain")
        together = list(many.map(ask, countries))
        assert together == [ask(country) for country in countries], (
            "each is what it would have been alone"
        )
    assert len(set(together)) == 4 and all(together)
