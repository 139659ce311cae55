"""Tools that a model is offered, and the calls it makes, as values.

How a prompt spells them belongs to `tool_syntax`, and running them to `tools`.
"""

from typing import Any, Literal

from msgspec import Struct

Choice = Literal["auto", "none", "required"]


class Call(Struct, frozen=True):
    """A call of a tool. id: names it among the calls of a conversation."""

    id: str
    name: str
    arguments: dict[str, Any]

    def as_openai(self) -> dict[str, Any]:
        """The form that chat templates and `Message.calls` hold: arguments as an object."""
        function = {"name": self.name, "arguments": self.arguments}
        return {"type": "function", "id": self.id, "function": function}


class ToolRequest(Struct, frozen=True):
    """The tools of one request.

    tools: definitions in OpenAI's form, {"type", "function": {"name", "description",
    "parameters"}}, where parameters is a JSON Schema. choice: whether the model may, must not or
    must call one; with `name`, it must call that one. parallel: whether an answer may make several
    calls. shown: the definitions as the prompt has them, in place of `tools`, where those would
    take too much of the window. structured: an answer without a call has a structure of its own,
    so that JSON without the marks of a call is that answer.
    """

    tools: tuple[dict[str, Any], ...]
    choice: Choice = "auto"
    name: str = ""
    parallel: bool = True
    shown: tuple[dict[str, Any], ...] = ()
    structured: bool = False

    @property
    def offered(self) -> tuple[dict[str, Any], ...]:
        """The definitions as the prompt has them."""
        return self.shown or self.tools

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(tool["function"]["name"] for tool in self.tools)
