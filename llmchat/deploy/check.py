"""Whether a server that renders our template reads the token ids that the model gets from us."""

from llmchat.conversation import Message
from llmchat.deploy.facts import Subject
from llmchat.deploy.files import template
from llmchat.engines.tokens import Tokens

_TALK = (
    Message("user", "What is the capital of France?"),
    Message("assistant", "The capital of France is Paris."),
    Message("user", "  And of 日本?\nIn one word. "),
)
_SAMPLES = (_TALK[:1], (Message("system", "Answer in one word."), *_TALK[:1]), _TALK)


def differing(subject: Subject) -> list[str]:
    """Sample conversations that would be read otherwise, each with the first place where the ids part; [] when all are the same.

    As vLLM does it: the rendered text, encoded by transformers' tokenizer with nothing added. Formats with a template of the checkpoint are
    not looked at: both sides run the same one.
    """
    if subject.preset.format.parts is None:
        return []
    from transformers import AutoTokenizer
    from transformers.utils.chat_template_utils import render_jinja_template

    theirs, ours = AutoTokenizer.from_pretrained(str(subject.base.folder), trust_remote_code=False), Tokens(subject.base.folder)
    found = []
    for messages in _SAMPLES:
        records = [{"role": message.role, "content": message.text} for message in messages]
        rendered, _ = render_jinja_template([records], chat_template=template(subject), add_generation_prompt=True)
        given = theirs(rendered[0], add_special_tokens=False)["input_ids"]
        system = [Message("system", subject.preset.system)] if subject.preset.system and messages[0].role != "system" else []
        wanted = ours.encode(subject.preset.format.render([*system, *messages]))
        if given != wanted:
            place = next(
                (index for index, pair in enumerate(zip(given, wanted, strict=False)) if pair[0] != pair[1]), min(len(given), len(wanted))
            )
            found.append(f"token {place}: {ours.name_of(wanted[place]) if place < len(wanted) else 'the end'} for us, "
                         f"{theirs.convert_ids_to_tokens(given[place]) if place < len(given) else 'the end'} for the server")  # fmt: skip
    return found
