"""The language of a record, by py3langid: 97 languages, without a network."""

from typing import Any

from llmchat.errors import UsageError, did_you_mean
from llmchat.finetune.data.extras import need
from llmchat.finetune.data.flaws import answers, inputs, questions
from llmchat.finetune.records import Record

# Enough to identify a language; more is only slower.
_CHARACTERS = 250
# Below this probability the library guesses, as for a name, a number or a line of code. Measured on
# short English, French and Chinese answers.
_SURE = 0.5


class Languages:
    def __init__(self) -> None:
        module = need("py3langid.langid", "detecting languages")
        self._identifier: Any = module.LanguageIdentifier.from_model_file(
            module.MODEL_FILE, norm_probs=True
        )

    def check(self, code: str) -> str:
        """The code. Raises UsageError for a language that cannot be detected."""
        if code not in self._identifier.labels:
            raise UsageError(
                f"unknown language code `{code}`",
                did_you_mean(code, tuple(self._identifier.labels)) or "two letters: en, de, zh",
            )
        return code

    def of(self, record: Record) -> str:
        """The language code of a record, question and answer together; "" if uncertain."""
        parts = (
            " ".join(part)[:_CHARACTERS]
            for part in (questions(record), inputs(record), answers(record))
        )
        text = " ".join(part for part in parts if part)
        code, sure = self._identifier.classify(text)
        return str(code) if sure >= _SURE else ""
