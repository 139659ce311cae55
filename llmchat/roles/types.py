"""A role: saved prompts and options.

A role is data. `options` are those that it sets, under the names of settings.Options; flags
override them. `ask` puts its prompt around a question.
"""

import string
from collections.abc import Collection, Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from llmchat.conversation import Conversation, Message
from llmchat.errors import UsageError, any_of, did_you_mean
from llmchat.settings import OF_MODEL, Settings, World, resolve

INPUT = "input"


class Role(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A role's TOML file. `$name` in system, prompt and turns is a value; `$$` is a `$`.

    name: that of its file. spec: its name and the values that were given, which find it again.
    """

    name: str = ""
    """Name of the role."""
    spec: str = ""
    """Its name with the values that were given."""
    about: str = ""
    """Its purpose, in one line."""
    system: str = ""
    """System text."""
    prompt: str = ""
    """Text around each question; `$input` is the question."""
    once: bool = False
    """Whether prompt and turns apply only to the first question in the role."""
    turns: tuple[str, ...] = ()
    """Questions that are asked after the first answer, in order."""
    values: dict[str, str] = {}
    """Values of the other names in its texts."""
    model: str = ""
    """Model, as --model names it."""
    format: str = ""
    """Prompt format."""
    schema: str = ""
    """Structure of the answers, as after `/schema`."""
    tools: tuple[str, ...] = ()
    """Tools that the model may call."""
    docs: tuple[str, ...] = ()
    """Indexes that are searched for each question."""
    sampling: dict[str, Any] = {}
    """Sampling parameters."""

    def options(self) -> dict[str, Any]:
        """The options that it sets, with the names and types of settings.Options.

        Raises UsageError where its system text lacks a value.
        """
        found: dict[str, Any] = {
            "model": self.model,
            "format": self.format,
            "system": self._filled(self.system) if self.system else "",
            "schema": self.schema,
            "tool": self.tools,
            "docs": self.docs,
        }
        return {name: value for name, value in found.items() if value} | self.sampling

    @property
    def takes_input(self) -> bool:
        """Whether its prompt contains `$input`."""
        return INPUT in names_in(self.prompt)

    @property
    def names(self) -> list[str]:
        """The names in its texts, `input` left out, in the order of the texts."""
        texts = (self.system, self.prompt, *self.turns)
        found = dict.fromkeys(name for text in texts for name in names_in(text))
        return [name for name in found if name != INPUT]

    @property
    def missing(self) -> list[str]:
        """The names that have no value."""
        return [name for name in self.names if name not in self.values]

    def check_complete(self) -> None:
        """Raise UsageError if a name has no value."""
        if self.missing:
            raise self._lacks(self.missing)

    def with_values(self, values: Mapping[str, str]) -> "Role":
        """The role with these values. Raises UsageError for a name that it does not use."""
        for name in values:
            if name not in self.names:
                names = self.names
                known = f"its values are {', '.join(names)}" if names else "it takes no values"
                hint = did_you_mean(name, names) or known
                raise UsageError(f"the role `{self.name}` has no value `{name}`", hint)
        return replace(self, values=self.values | dict(values))

    def ask(self, question: Message) -> Message:
        """A question with the role's prompt around its text; its material stays beside it.

        A prompt without `$input` goes before the text.
        """
        if not self.prompt:
            return question
        text = self._filled(self.prompt, question.text)
        if not self.takes_input and question.text:
            text = f"{text.rstrip()}\n\n{question.text}"
        return replace(question, text=text.strip())

    def questions(self, question: Message, *, begun: bool) -> tuple[Message, tuple[str, ...]]:
        """A question in the role's words, and the questions that follow it.

        begun: whether the chat has a question, so that a role with `once` changes no other.
        """
        if self.once and begun:
            return question, ()
        return self.ask(question), self.follow_ups(question.text)

    def ask_last(self, conversation: Conversation) -> Conversation:
        """A conversation whose last question has the role's prompt around it.

        With `once`, one that is not the first stays as it is.
        """
        messages, place = list(conversation.messages), conversation.question
        follows = any(message.role == "user" for message in messages[: max(place, 0)])
        if place < 0 or (self.once and follows):
            return conversation
        messages[place] = self.ask(messages[place])
        return Conversation(tuple(messages))

    def ask_each(self, conversation: Conversation) -> Conversation:
        """A conversation whose questions have the role's prompt around them; with `once`, only the
        first one has.
        """
        messages = list(conversation.messages)
        places = [place for place, message in enumerate(messages) if message.role == "user"]
        for place in places[:1] if self.once else places:
            messages[place] = self.ask(messages[place])
        return Conversation(tuple(messages))

    def check_lacks(self, names: Collection[str], caller: str, hint: str) -> None:
        """Raise UsageError if it has one of these keys, which the caller does not support."""
        if has := [name for name in names if getattr(self, name)]:
            raise UsageError(
                f"the role `{self.name}` has {' and '.join(has)}, which {caller} does not support",
                hint,
            )

    def follow_ups(self, text: str) -> tuple[str, ...]:
        """The questions after the first one. text: what the user asked, for `$input` in them."""
        return tuple(self._filled(turn, text).strip() for turn in self.turns)

    def _filled(self, text: str, given: str = "") -> str:
        try:
            return string.Template(text).substitute(self.values, **{INPUT: given})
        except KeyError as error:
            raise self._lacks([str(error.args[0])]) from error

    def _lacks(self, names: list[str]) -> UsageError:
        given = " ".join(f"{name}=…" for name in names)
        return UsageError(
            f"the role `{self.name}` requires a value for {any_of(names)}".replace(" or ", " and "),
            f"write them after its name: '{self.name} {given}'",
        )


def check_text(text: str, key: str) -> None:
    """Raise UsageError for a `$` that does not begin a name."""
    template = string.Template(text)
    if not template.is_valid():
        found = next(one for one in template.pattern.finditer(text) if one["invalid"] is not None)
        place = text[found.start() : found.start() + 12].splitlines()[0]
        raise UsageError(f"`{key}`: `{place}` is not a `$name`", "write `$$` for a dollar sign")


def names_in(text: str) -> list[str]:
    """The `$names` in a text."""
    return string.Template(text).get_identifiers()


# A session keeps these itself, or its model does.
_OF_SESSION = (*OF_MODEL, "system", "docs")
# Options of a role that belong to the model that it names.
_OF_ITS_MODEL = ("model", "format")


def with_role(role: Mapping[str, Any], flags: Mapping[str, Any]) -> dict[str, Any]:
    """The flags of a command line, with the options of a role where no flag is given.

    A flag for another model leaves out what the role says of its own.
    """
    given = {name: value for name, value in flags.items() if value not in (None, [], ())}
    other = "model" in given and "model" in role
    kept = {name: value for name, value in role.items() if not (other and name in _OF_ITS_MODEL)}
    return kept | given


def settings_with_role(
    world: World,
    role: Role | None,
    flags: Mapping[str, Any],
    sets: Mapping[str, Any] | None = None,
) -> Settings:
    """What flags, the role, variables and the config file say, in this order.

    The origin of a value of the role is `role NAME`. sets: the options of the role that count; all
    of them by default.
    """
    if role is None:
        return resolve(world, flags)
    merged = with_role(role.options() if sets is None else sets, flags)
    settings = resolve(world, merged)
    own = {name: f"role {role.name}" for name in merged if flags.get(name) in (None, [], ())}
    return replace(settings, origins=settings.origins | own)


def kept_options(role: Role) -> dict[str, Any]:
    """The options of a role in a chat that is continued: its model and its texts are there."""
    return {name: value for name, value in role.options().items() if name not in _OF_SESSION}
