"""What an answer must look like, as a value. Engines enforce it while they choose tokens."""

from typing import Literal

from msgspec import Struct

Kind = Literal["json", "schema", "regex", "choice", "grammar"]


class Structure(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The form of an answer.

    kind and source: `json` any JSON object, no source; `schema` a JSON Schema as JSON text; `regex`
    a regular expression for the whole answer; `choice` a JSON list of texts, one of which is the
    answer; `grammar` a Lark grammar as llguidance reads it.
    """

    kind: Kind
    """Kind of form."""
    source: str = ""
    """Schema, expression, list of texts or grammar."""
