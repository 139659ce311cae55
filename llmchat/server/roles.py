"""Roles as models: `role:NAME` is the role's model with its prompts, schema and sampling.

A field of a request goes before the role's own value.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from llmchat.conversation import Conversation, Message
from llmchat.engines import guide
from llmchat.errors import UsageError
from llmchat.roles import Role, find_role, settings_with_role
from llmchat.server.answer_forms import AnswerForm
from llmchat.server.api import ChatRequest
from llmchat.settings import Options, World
from llmchat.structure import Structure
from llmchat.structure.arguments import parse

PREFIX = "role:"


class ServedRole(Struct, frozen=True):
    """A role that the server offers. structure: that of its answers."""

    role: Role
    structure: Structure | None = None

    @property
    def docs(self) -> tuple[str, ...]:
        """The indexes that are searched for a request that names none."""
        return self.role.docs

    def fill(self, request: ChatRequest) -> ChatRequest:
        """The request with the role's documents if it names none."""
        if request.docs is not None or not self.docs:
            return request
        return request.model_copy(update={"docs": list(self.docs)})

    def form(self, request: ChatRequest, form: AnswerForm) -> AnswerForm:
        """The form of the answer: that of the request, else that of the role."""
        asked = request.response_format or request.structured_outputs
        return form if asked else replace(form, structure=self.structure)

    def conversation(self, conversation: Conversation) -> Conversation:
        """The conversation with the role's prompt around its questions, and its system text."""
        worded = self.role.ask_each(conversation)
        system = str(self.role.options().get("system", ""))
        if not system or worded.system:
            return worded
        return Conversation((Message("system", system), *worded.messages))


NO_ROLE = ServedRole(Role())


def served_roles(
    world: World, specs: Sequence[str], offered: Sequence[str]
) -> dict[str, ServedRole]:
    """The roles of `serve --role`, each by the name of its model.

    offered: the indexes of `serve --docs`. Raises UsageError for a role that cannot be served.
    """
    found: dict[str, ServedRole] = {}
    for spec in specs:
        role = find_role(spec, world.own_roles)
        name = f"{PREFIX}{role.name}"
        if name in found:
            raise UsageError(f"the role `{role.name}` is named twice")
        found[name] = _served(role, offered)
    return found


def _served(role: Role, offered: Sequence[str]) -> ServedRole:
    role.check_lacks(
        ("turns", "tools"),
        "a server",
        "clients ask the questions and bring the tools; use this role with `llmchat chat`",
    )
    if missing := [name for name in role.docs if name not in offered]:
        raise UsageError(
            f"the role `{role.name}` searches `{missing[0]}`, which the server does not offer",
            f"`--docs {missing[0]}` offers it to every request",
        )
    structure = parse(role.schema) if role.schema else None
    if structure is not None:
        guide.check(structure)
    return ServedRole(role, structure)


def model_options(world: World, role: Role, flags: Mapping[str, Any], model: str) -> Options:
    """The options of a role's model; model: its name on this server, empty for the user's own.

    The form of answers is that of the ServedRole, which a request can replace.
    """
    sets = {name: value for name, value in role.options().items() if name != "schema"}
    return settings_with_role(
        world, role, flags, sets | ({"model": model} if model else {})
    ).options
