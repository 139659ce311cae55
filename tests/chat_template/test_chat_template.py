"""Chat templates are strangers' programs: what they may do, and what stops them."""

import contextlib
import threading

import pytest

from llmchat import chat_template
from llmchat.errors import Mismatch

BOMBS = {
    "a loop in a loop": ("{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}", "steps"),
    "a loop over what it passes by": ("{% for i in range(100000) %}{% for j in range(100000) if " + "j == 0 and " * 40 + "false %}{% endfor %}{% endfor %}", "steps"),
    "loops in a block": ("{% for i in range(1000) %}{% block x scoped %}{% for j in range(9000) %}{% endfor %}{% endblock %}{% endfor %}", "steps"),
    "a macro in a loop": ("{% macro f() %}{% for i in range(1000) %}{% endfor %}{% endmacro %}{% for i in range(10000) %}{{ f() }}{% endfor %}", "steps"),
    "a recursive loop": ("{% for i in [1] recursive %}{% for j in range(100000) %}{% endfor %}{{ loop([1] * 10) }}{% endfor %}", "steps"),
    "a long range": ("{% for i in range(99999999) %}{% endfor %}", "counts further"),
    "a repetition": ("{{ 'a' * 1000000000 }}", "larger than"),
    "a power": ("{{ 2 ** 100000000 }}", "power"),
    "doubling by +": ("{% set n = namespace(x='aaaaaaaaaa') %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}", "larger than"),
    "doubling by ~": ("{% set n = namespace(x='aaaaaaaaaa') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}", "larger than"),
    "doubling by ~ without a loop": ("{% set a = 'aaaaaaaaaa' %}" + "{% set a = a ~ a %}" * 60, "larger than"),
    "joining much by ~ at once": ("{% set a = 'a' * 1000000 %}{% set b = " + " ~ ".join("a" * 200) + " %}", "larger than"),
    "keeping much without a loop": ("".join(f"{{% set a{i} = 'é\u20ac' * 200000 %}}" for i in range(200)), "too much memory"),
    "doubling by + of many": ("{% set n = namespace(x='aaaaaaaaaa') %}{% for i in range(60) %}{% set n.x = n.x + n.x + n.x %}{% endfor %}", "larger than"),
    "lists by +": ("{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = n.x + n.x + [1] %}{% endfor %}", "larger than"),
    "very many additions": ("{{ " + " + ".join(["'ab'"] * 20_000) + " }}", "recursion|500 parts"),
    "text and a number": ("{{ 'a' + 'b' + 1 }}", "str"),
    "padding by a method": ("{{ 'a'.center(999999999) }}", "unsafe"),
    "padding by a filter": ("{{ 'a' | center(999999999) }}", "No filter named"),
    "padding by %": ("{{ '%999999999d' % 1 }}", "no chat template needs"),
    "padding by format": ("{{ '{:>999999999}'.format('a') }}", "formats in a way"),
    "a growing replacement": ("{{ 'axa'.replace('x', 'y' * 1900000).replace('y', 'z' * 1000000) }}", "larger than"),
    "a growing replacement by a filter": ("{{ ('x' * 1900000) | replace('x', 'yyyy') }}", "larger than"),
    "a join": ("{{ ''.join(['a' * 10000] * 190) * 9999 }}", "larger than"),
    "a join by a filter": ("{{ (['a' * 10000] * 190) | join('a' * 1000000) }}", "larger than"),
    "endless output": ("{% for i in range(100000) %}{{ 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' * 200 }}{% endfor %}", "too much memory"),
    "recursion": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
}  # fmt: skip
ESCAPES = {
    "the classes of everything": "{{ messages.__class__.__mro__[1].__subclasses__() }}",
    "globals of a function": "{{ raise_exception.__globals__ }}",
    "changing the conversation": "{{ messages.append('x') }}",
    "the loader": "{{ self.__init__.__globals__ }}{{ cycler.__init__.__globals__.os }}",
    "no template": "{% for message in messages %",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_template_that_would_never_end_or_fill_the_memory_is_stopped(name: str) -> None:
    template, reason = BOMBS[name]
    with pytest.raises(
        Mismatch, match=f"the chat template of `x` refuses this conversation: .*{reason}"
    ):
        chat_template.run(template, {"messages": []}, "x")


@pytest.mark.parametrize("name", ESCAPES)
def test_a_template_cannot_leave_its_sandbox(name: str) -> None:
    messages = [{"role": "user", "content": "x"}]
    with contextlib.suppress(Mismatch):
        assert "os" not in chat_template.run(ESCAPES[name], {"messages": messages}, "x")
    assert messages == [{"role": "user", "content": "x"}]


def test_what_real_templates_use_works() -> None:
    def run(template: str) -> str:
        return chat_template.run(
            template, {"messages": [{"role": "user", "content": " a</think>b "}]}, "x"
        )

    assert run("{% generation %}hi{% endgeneration %}") == "hi"
    assert run("{{ messages[0].content.split('</think>')[-1].strip() }}") == "b"
    assert run("{{ messages | tojson(indent=2) }}").startswith("[\n  {\n")
    assert (
        run("{{ {'b': 1, 'a': 'é'} | tojson(separators=(',', ':'), sort_keys=true) }}")
        == '{"a":"é","b":1}'
    )
    assert (
        run(
            "{%- for m in messages -%}{%- if loop.first -%}{% continue %}{%- endif -%}{%- endfor -%}x"
        )
        == "x"
    )
    assert len(run("{{ strftime_now('%d %b %Y') }}")) == 11
    assert (
        run(
            "{% for i in range(6) if i % 2 %}{{ loop.index }}{{ i }}{{ ' ' if not loop.last }}{% endfor %}"
        )
        == "11 23 35"
    )
    assert (
        run(
            "{% for m in messages %}{{ loop.index0 }}{{ loop.length }}{{ m.role }}{{ m.missing is defined }}{% endfor %}"
        )
        == "01userFalse"
    )
    assert (
        run(
            "{{ 'a' + messages[0].role + 'b' + ('c' + 'd') + '' }}{{ 1 + 2 + 3.5 }}{{ ([1] + [2] + [3]) | length }}"
        )
        == "auserbcd6.53"
    )
    assert (
        run(
            "{% set n = namespace(a=false) %}{% set n.a = true %}{{ n.a }}{{ 7 % 2 }}{{ 'a' + 'b' }}{{ 'a' ~ 1 }}"
        )
        == "True1aba1"
    )


def test_the_limits_hold_in_other_threads() -> None:
    caught: list[Exception] = []

    def work() -> None:
        try:
            chat_template.run(BOMBS["a loop in a loop"][0], {"messages": []}, "x")
        except Mismatch as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    assert caught


def test_the_marks_of_a_template() -> None:
    text = "<|im_start|> <start_of_turn> </s> [INST] [/INST] <<SYS>> <</SYS>> <｜x｜> a < b {{ x[0] }} [SYSTEM_PROMPT] <br>"
    assert chat_template.labels(text) == {
        "<|im_start|>",
        "<start_of_turn>",
        "</s>",
        "[INST]",
        "[/INST]",
        "<<SYS>>",
        "<</SYS>>",
        "<｜x｜>",
        "[SYSTEM_PROMPT]",
        "<br>",
    }


# One of each thing that templates of today's models do, in our own words.
CONSTRUCTS = {
    "methods in a loop": "{% for m in messages %}{% set c = m.content.strip().split(' ')[-1].lstrip('a').rstrip('\\n') %}{{ c.upper() }}{{ m.get('x', 'y') }}{% endfor %}",
    "items in a loop": "{% for t in tools %}{% for k, v in t.function.parameters.properties.items() %}{{ k }}={{ v.type if v.type is string else v.type | join('|') }};{% endfor %}{% endfor %}",
    "a macro that calls itself": "{% macro kind(v) %}{% if v is mapping %}{ {%- for k, w in v.items() %}{{ k }}:{{ kind(w) }},{% endfor -%} }{% elif v is iterable and v is not string %}[{% for w in v %}{{ kind(w) }},{% endfor %}]{% else %}{{ v }}{% endif %}{% endmacro %}{{ kind(tools) }}",
    "tojson in all ways": "{{ tools | tojson }}{{ tools | tojson(indent=4) }}{{ tools[0] | tojson(ensure_ascii=False) }}{{ tools | tojson(separators=(',', ':')) | safe }}",
    "a namespace": "{% set ns = namespace(last=-1, tools=[]) %}{% for m in messages[::-1] %}{% if m.role == 'user' and ns.last < 0 %}{% set ns.last = messages | length - 1 - loop.index0 %}{% set ns.tools = ns.tools + [m.role] %}{% endif %}{% endfor %}{{ ns.last }}{{ ns.tools }}",
    "slices": "{% set rest = messages[1:] %}{{ rest[-1].content[:3] }}{{ rest[-1]['content'][3:] }}{{ 'abc'[::-1] }}{{ rest[:-1] | length }}",
    "filters": "{{ messages | map(attribute='role') | list }}{{ messages | selectattr('role', 'equalto', 'user') | list | length }}{{ messages | rejectattr('role', 'in', ['user']) | map(attribute='content') | join('+') }}",
    "more filters": "{{ 'a b' | title | upper | lower | capitalize | trim | replace('b', 'c') }}{{ [3, 1] | sort | first }}{{ {'b': 1, 'a': 2} | dictsort }}{{ [1, 1, 2] | unique | list }}{{ [1, 2] | sum }}{{ ' 7 ' | int + 1 }}{{ none | default('d', true) }}{{ [1, 2] | reverse | list }}{{ 'x\\ny' | indent(2) }}",
    "text": "{{ 'a' ~ 1 ~ none ~ [1] ~ true }}{{ '{} is {0}{x}'.format('a', x=2) if false else '{} is {x}'.format('a', x=2) }}{{ 'abc'.removeprefix('a').partition('b') }}{{ 'a-b'.replace('-', '_').startswith(('a', 'b')) }}",
    "a call block": "{% macro tag(name) %}<{{ name }}>{{ caller() }}</{{ name }}>{% endmacro %}{% call tag('think') %}{% for m in messages %}{{ loop.cycle('x', 'y') }}{% endfor %}{% endcall %}",
    "a set block": "{% set text %}{% for m in messages %}{{ m.content }}{% endfor %}{% endset %}{{ text | trim | length }}{{ text[:4] }}",
    "conditions": "{% for m in messages if m.role != 'system' %}{{ loop.index }}/{{ loop.length }}{{ loop.previtem.role if loop.previtem is defined and not loop.first }}{{ loop.nextitem.role or '-' if not loop.last }};{% else %}none{% endfor %}{{ missing is not defined }}{{ (messages[0].content is string) and not tools is none }}",
    "numbers": "{{ 7 // 2 }}{{ 7 / 2 }}{{ 2 ** 8 }}{{ -7 % 3 }}{{ 3 is odd }}{{ 1.25 | round(1) }}{{ 'ab' * 2 }}{{ [0] * 2 }}{{ range(1, 6, 2) | list }}",
    "marked as safe": "{% set a = '<b>' | safe %}{{ a }}{{ a ~ '<i>' }}{{ '<&>' | e }}",
}  # fmt: skip
TOOL = {
    "type": "function",
    "function": {"name": "f", "description": "é <x>", "parameters": {"properties": {"a": {"type": "string"}, "b": {"type": ["integer", "null"]}}}},
}  # fmt: skip


@pytest.mark.parametrize("name", CONSTRUCTS)
def test_what_templates_of_today_do_is_rendered_as_transformers_renders_it(name: str) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    messages = [
        {"role": role, "content": f" {role} says a日本 "}
        for role in ("system", "user", "assistant", "user")
    ]
    wanted = render_jinja_template(
        [messages], tools=[TOOL], chat_template=CONSTRUCTS[name], add_generation_prompt=True
    )[0][0]
    assert (
        chat_template.run(
            CONSTRUCTS[name],
            {"messages": messages, "tools": [TOOL], "add_generation_prompt": True},
            "x",
        )
        == wanted
        != ""
    )
