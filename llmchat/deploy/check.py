"""Check that a server with our template and tokenizer reads the token ids that llmchat sends."""

from pathlib import Path

from llmchat.conversation import Message
from llmchat.deploy.facts import ServedModel
from llmchat.engines.tokenizer import Tokenizer

_TALK = (
    Message("user", "What is the capital of France?"),
    Message("assistant", "The capital of France is Paris."),
    Message("user", "  And of 日本?\nIn one word. "),
)
_SAMPLES = (_TALK[:1], (Message("system", "Answer in one word."), *_TALK[:1]), _TALK)


def differing(served: ServedModel, folder: Path) -> list[str]:
    """Sample conversations with different token ids, each with the first difference; [] if none.

    folder: what `write_folder` wrote. Does what vLLM does: renders the text, and encodes it with
    transformers' tokenizer, adding nothing.
    """
    from transformers import AutoTokenizer
    from transformers.utils.chat_template_utils import render_jinja_template

    theirs, ours = (
        AutoTokenizer.from_pretrained(str(folder / "tokenizer")),
        Tokenizer(served.base.folder),
    )
    template, default, found = (
        (folder / "chat_template.jinja").read_text("utf-8"),
        served.preset.system,
        [],
    )
    for messages in _SAMPLES:
        # A checkpoint's own template lacks the preset's system text, which clients send.
        own = [Message("system", default)] if default and messages[0].role != "system" else []
        sent = [*own, *messages] if served.format.template is not None else messages
        wanted = ours.encode(served.format.render([*own, *messages]))
        records = [{"role": message.role, "content": message.text} for message in sent]
        names = {
            key: theirs.special_tokens_map[key]
            for key in ("bos_token", "eos_token")
            if key in theirs.special_tokens_map
        }
        rendered, _ = render_jinja_template(
            [records], chat_template=template, add_generation_prompt=True, **names
        )
        given = theirs(rendered[0], add_special_tokens=False)["input_ids"]
        if given != wanted:
            place = next(
                (
                    place
                    for place, pair in enumerate(zip(given, wanted, strict=False))
                    if pair[0] != pair[1]
                ),
                min(len(given), len(wanted)),
            )
            here, there = (
                ours.name_of(ids[place]) if place < len(ids) else "the end"
                for ids in (wanted, given)
            )
            found.append(f"token {place} is {here} for llmchat and {there} for the server")
    return found
