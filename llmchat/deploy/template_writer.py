"""Write a prompt format as a Jinja chat template, so that any server renders the same text.

The template does not depend on how an engine trims white space, and is ASCII with escapes. Its
limits are in docs/scaling.md: it renders text only, so a special token spelt in a message is read
as that token.
"""

import functools
import re
from collections.abc import Collection

from llmchat.errors import Mismatch
from llmchat.prompt import WORD_JOINER, Parts, PromptFormat, Replacements

_SLOT = re.compile(r"(\{text\}|\{input\}|\{system\})")
# A server passes only the text of a user message. Its material is in the message, if the server
# allows that, or in `inputs`, a list with one entry for each user message (vLLM's
# `chat_template_kwargs`).
_MATERIAL = 'message["input"] or (inputs or [])[loop.index0 // 2] or ""'
_FIRST_MATERIAL = 'spoken[0]["input"] or (inputs or [])[0] or ""'


def jinja_template(
    form: PromptFormat, *, bos: str = "", system: str = "", special: Collection[str] = ()
) -> str:
    """The template of a format; `add_generation_prompt` opens the answer.

    bos: the tokenizer's opening token, for servers that add none to a rendered prompt (vLLM);
    system: the default system text; special: special tokens that messages must not contain, made
    harmless as labels are; without them the text is exactly that of `form.render`. Raises Mismatch
    if the format is a template already, or cannot be written in Jinja.
    """
    if form.parts is None:
        raise Mismatch(
            f"the format `{form.name}` is the checkpoint's own chat template",
            "servers find it in the checkpoint",
        )
    parts = form.parts
    blocks = [
        f"{{#- The prompt format `{_ascii(form.name)}`, written by llmchat. -#}}",
        _said(parts, form.escapes, special),
        _CHECKS.replace("DEFAULT", _literal(system)),
        _write(bos) if bos else "",
        _opening(parts, form.escapes),
        _turns(parts, form.escapes),
    ]
    return "\n".join(filter(None, blocks)) + "\n"


_CHECKS = """\
{%- if not messages -%}{{- raise_exception("a prompt needs a user message") -}}{%- endif -%}
{%- for message in messages -%}
  {%- if message["content"] is not string -%}\
{{- raise_exception("this format takes messages of text alone") -}}{%- endif -%}
{%- endfor -%}
{%- set system = messages[0]["content"] if messages[0]["role"] == "system" else DEFAULT -%}
{%- set spoken = messages[1:] if messages[0]["role"] == "system" else messages -%}
{%- if not spoken -%}{{- raise_exception("a prompt needs a user message") -}}{%- endif -%}"""


def _said(parts: Parts, escapes: Replacements, special: Collection[str]) -> str:
    """A macro that writes a message: stripped, tidied, its labels made harmless."""
    harmless = [
        (label, label[0] + WORD_JOINER + label[1:])
        for label in (*parts.labels, *sorted(set(special) - set(parts.labels)))
    ]
    lines = ["{%- macro said(words) -%}", "  {%- set now = namespace(text=words|trim) -%}"]
    if parts.tidy:
        if any(len(new) >= len(old) for old, new in parts.tidy):
            raise Mismatch(
                "a format whose `tidy` does not make a message shorter cannot be a Jinja template"
            )
        # Jinja has no `while`. Each pass makes the text shorter, so there are never more passes
        # than characters.
        lines += [
            "  {%- for character in now.text -%}",
            f"    {{%- set tidied = now.text{_replacing(parts.tidy)} -%}}",
            "    {%- if tidied == now.text -%}{%- break -%}{%- endif -%}",
            "    {%- set now.text = tidied -%}",
            "  {%- endfor -%}",
        ]
    return "\n".join(
        [*lines, f"  {{{{- now.text{_replacing((*harmless, *escapes))} -}}}}", "{%- endmacro -%}"]
    )


def _opening(parts: Parts, escapes: Replacements) -> str:
    plain = _write(parts.opening, escapes)
    if parts.opening_with_input:
        plain = _choice(_FIRST_MATERIAL, _write(parts.opening_with_input, escapes), plain)
    if parts.system:
        plain = _choice("system", _write(parts.system, escapes, text="system"), plain)
    return plain + _write(parts.examples, escapes)


def _turns(parts: Parts, escapes: Replacements) -> str:
    has_place = bool(parts.system or parts.user_with_system)
    own = (
        'message["content"]'
        if has_place
        else '(system ~ "\\n\\n" if system and loop.first else "") ~ message["content"]'
    )
    plain = 'material ~ "\\n\\n" ~ text if material and text else material or text'
    question = _write(parts.user, escapes, text="plain")
    if parts.user_with_input:
        question = _choice(
            "material",
            _write(parts.user_with_input, escapes, text="text", input="material"),
            question,
        )
    if parts.user_with_system:
        question = _choice(
            "system and loop.first",
            _write(parts.user_with_system, escapes, text="plain", system="system"),
            question,
        )
    answer = _write(parts.assistant, escapes, text="text") + _write(
        parts.end + parts.separator, escapes
    )
    lines = [
        "{%- for message in spoken -%}",
        '  {%- if message["role"] != ("assistant" if loop.index0 % 2 else "user") -%}',
        '    {{- raise_exception("message " ~ loop.index ~ " is from `" ~ message["role"]'
        ' ~ "`; user and assistant must take turns") -}}',
        "  {%- endif -%}",
        f"  {{%- set text = {own} -%}}",
        '  {%- if message["role"] == "user" -%}',
        f"    {{%- set material = {_MATERIAL} -%}}",
        f"    {{%- set plain = {plain} -%}}",
        f"    {question}",
        "    {%- if not loop.last or add_generation_prompt -%}"
        f"{_write(parts.cue, escapes)}{{%- endif -%}}",
        "  {%- else -%}",
        f"    {answer}",
        "  {%- endif -%}",
        "{%- endfor -%}",
    ]
    return "\n".join(lines)


def _write(part: str, escapes: Replacements = (), **slots: str) -> str:
    """Writes a part of a format; slots: the variable that stands in each of its places."""
    pieces = []
    for piece in filter(None, _SLOT.split(part)):
        written = functools.reduce(lambda text, pair: text.replace(*pair), escapes, piece)
        pieces.append(
            f"said({slots[piece[1:-1]]})" if _SLOT.fullmatch(piece) else _literal(written)
        )
    return f"{{{{- {' ~ '.join(pieces)} -}}}}" if pieces else ""


def _choice(condition: str, then: str, other: str) -> str:
    return f"{{%- if {condition} -%}}{then}{{%- else -%}}{other}{{%- endif -%}}"


def _replacing(replacements: Replacements | list[tuple[str, str]]) -> str:
    return "".join(f"|replace({_literal(old)}, {_literal(new)})" for old, new in replacements)


def _literal(text: str) -> str:
    """A string of Jinja's, in ASCII."""
    escaped = text.encode("unicode_escape").decode("ascii").replace('"', '\\"')
    return f'"{escaped}"'


def _ascii(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode("ascii").replace("#}", "")
