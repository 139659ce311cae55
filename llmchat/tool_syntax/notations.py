"""Reads the arguments of a call in each notation: JSON, Python, XML, and Gemma's."""

import json
import re
from collections.abc import Callable
from typing import Any

from llmchat.tool_syntax import schemas
from llmchat.tool_syntax.cursor import Cursor, Incomplete, Invalid
from llmchat.tool_syntax.dialect import Dialect, Notation
from llmchat.tool_syntax.schemas import Schema

Arguments = dict[str, Any]
_KEYWORD = re.compile(r"\s*(\w+)\s*=\s*")
_PYTHON_PIECE = re.compile(
    r"'''.*?'''|\"\"\".*?\"\"\"|'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|[\"'\[\](){},]", re.DOTALL
)
_CDATA = re.compile(r"\s*<!\[CDATA\[(.*?)\]\]>\s*", re.DOTALL)
_GEMMA_SCALAR = re.compile(r"[^,}\]]+")
_GEMMA_KEY = re.compile(r"\s*([^:{}\[\],]+?)\s*:")


def read_json(cursor: Cursor, dialect: Dialect, schema: Schema) -> Arguments:
    return as_arguments(cursor.json_value())


def as_arguments(value: Any) -> Arguments:
    """Arguments as an object; some models write the object as JSON text in a string."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise Invalid from error
    if not isinstance(value, dict):
        raise Invalid
    return value


def read_python(cursor: Cursor, dialect: Dialect, schema: Schema) -> Arguments:
    """Keyword arguments up to the closing bracket, which is left."""
    arguments: Arguments = {}
    cursor.skip_space()
    while not cursor.text.startswith(")", cursor.position):
        key = cursor.match(_KEYWORD)[1]
        arguments[key] = _python_value(cursor)
        cursor.skip_space()
        if not cursor.accept(",") and not cursor.text.startswith(")", cursor.position):
            raise Incomplete if cursor.at_end and not cursor.final else Invalid
        cursor.skip_space()
    return arguments


def _python_value(cursor: Cursor) -> Any:
    """A value as Python or JSON writes it, up to the comma or bracket that follows."""
    before = cursor.position
    try:
        value = cursor.json_value()
        cursor.skip_space()
        if cursor.text[cursor.position : cursor.position + 1] in (",", ")"):
            return value
    except Invalid:
        pass
    cursor.position = before
    end = _python_end(cursor)
    value = schemas.python_literal(cursor.text[before:end])
    if schemas.is_nothing(value):
        raise Invalid
    cursor.position = end
    return value


def _python_end(cursor: Cursor) -> int:
    depth = 0
    for piece in _PYTHON_PIECE.finditer(cursor.text, cursor.position):
        if depth == 0 and piece[0] in ",)":
            return piece.start()
        if piece[0] in "\"'":
            break
        depth += piece[0] in "[({"
        depth -= piece[0] in "])}"
    raise Invalid if cursor.final else Incomplete


def read_xml(cursor: Cursor, dialect: Dialect, schema: Schema) -> Arguments:
    """Elements up to the end of the call; their values are typed by the schema."""
    opening, middle, closing = dialect.parameter
    arguments: Arguments = {}
    while cursor.accept(opening):
        key = cursor.until(middle.strip().partition("\n")[0])
        if rest := middle.strip().partition("\n")[2]:
            cursor.expect(rest)
        value = _xml_value(cursor, closing.strip(), closing)
        inner = schema.get("properties", {}).get(key.strip(), {})
        arguments[key.strip()] = schemas.typed(value, inner, schema)
    return arguments


def _xml_value(cursor: Cursor, mark: str, closing: str) -> str:
    """The text of an element, without the line ends that belong to its marks."""
    if cursor.text.startswith("\n", cursor.position) and closing.startswith("\n"):
        cursor.position += 1
    if cdata := _CDATA.match(cursor.text, cursor.position):
        cursor.position = cdata.end()
        cursor.expect(mark)
        return cdata[1]
    if _begins_cdata(cursor):
        raise Invalid if cursor.final else Incomplete
    value = cursor.until(mark)
    return value.removesuffix("\n") if closing.startswith("\n") else value


def _begins_cdata(cursor: Cursor) -> bool:
    return cursor.text[cursor.position :].lstrip().startswith("<![CDATA[")


def read_gemma(cursor: Cursor, dialect: Dialect, schema: Schema) -> Arguments:
    """Pairs of bare keys and values up to the closing brace, which is left."""
    return _gemma_pairs(cursor, dialect.quote)


def _gemma_pairs(cursor: Cursor, quote: str) -> Arguments:
    pairs: Arguments = {}
    cursor.skip_space()
    while not cursor.text.startswith("}", cursor.position):
        if cursor.accept(quote):
            key = cursor.until(quote)
            cursor.expect(":")
        else:
            key = cursor.match(_GEMMA_KEY)[1]
        pairs[key] = _gemma_value(cursor, quote)
        _expect_comma_or(cursor, "}")
    return pairs


def _expect_comma_or(cursor: Cursor, closing: str) -> None:
    cursor.skip_space()
    if cursor.at_end:
        raise Invalid if cursor.final else Incomplete
    if not cursor.text.startswith(closing, cursor.position):
        cursor.expect(",")
        cursor.skip_space()


def _gemma_value(cursor: Cursor, quote: str) -> Any:
    cursor.skip_space()
    if cursor.accept(quote):
        return cursor.until(quote)
    if cursor.accept("{"):
        inner = _gemma_pairs(cursor, quote)
        cursor.expect("}")
        return inner
    if cursor.accept("["):
        return _gemma_list(cursor, quote)
    if cursor.text.startswith('"', cursor.position):
        return cursor.json_value()
    scalar = cursor.match(_GEMMA_SCALAR)[0]
    if cursor.at_end and not cursor.final:
        raise Incomplete
    return schemas.typed(scalar.strip(), {}, {})


def _gemma_list(cursor: Cursor, quote: str) -> list[Any]:
    values = []
    cursor.skip_space()
    while not cursor.accept("]"):
        values.append(_gemma_value(cursor, quote))
        _expect_comma_or(cursor, "]")
    return values


READERS: dict[Notation, Callable[[Cursor, Dialect, Schema], Arguments]] = {
    "json": read_json,
    "python": read_python,
    "xml": read_xml,
    "gemma": read_gemma,
}
