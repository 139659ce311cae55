"""Chat templates are untrusted programs: what they may do, and what stops them."""

import datetime
from concurrent.futures import ThreadPoolExecutor

import pytest

from llmchat import chat_template
from llmchat.errors import Mismatch

BOMBS = {
    "a loop in a loop": (
        "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
        "steps",
    ),
    "a loop over what it passes by": (
        (
            "{% for i in range(100000) %}{% for j in range(100000) if "
            + "j == 0 and " * 40
            + "false %}{% endfor %}{% endfor %}"
        ),
        "steps",
    ),
    "loops in a block": (
        (
            "{% for i in range(1000) %}{% block x scoped %}{% for j in range(9000) %}"
            "{% endfor %}{% endblock %}{% endfor %}"
        ),
        "steps",
    ),
    "a macro in a loop": (
        (
            "{% macro f() %}{% for i in range(1000) %}{% endfor %}{% endmacro %}"
            "{% for i in range(10000) %}{{ f() }}{% endfor %}"
        ),
        "steps",
    ),
    "a recursive loop": (
        (
            "{% for i in [1] recursive %}{% for j in range(100000) %}{% endfor %}"
            "{{ loop([1] * 10) }}{% endfor %}"
        ),
        "steps",
    ),
    "a long range": ("{% for i in range(99999999) %}{% endfor %}", "counts further"),
    "a repetition": ("{{ 'a' * 1000000000 }}", "larger than"),
    "a power": ("{{ 2 ** 100000000 }}", "power"),
    "doubling by +": (
        (
            "{% set n = namespace(x='aaaaaaaaaa') %}{% for i in range(60) %}"
            "{% set n.x = n.x + n.x %}{% endfor %}"
        ),
        "larger than",
    ),
    "doubling by ~": (
        (
            "{% set n = namespace(x='aaaaaaaaaa') %}{% for i in range(60) %}"
            "{% set n.x = n.x ~ n.x %}{% endfor %}"
        ),
        "larger than",
    ),
    "doubling by ~ without a loop": (
        "{% set a = 'aaaaaaaaaa' %}" + "{% set a = a ~ a %}" * 60,
        "larger than",
    ),
    "joining much by ~ at once": (
        "{% set a = 'a' * 1000000 %}{% set b = " + " ~ ".join("a" * 200) + " %}",
        "larger than",
    ),
    "keeping much without a loop": (
        "".join(f"{{% set a{i} = 'é\u20ac' * 200000 %}}" for i in range(200)),
        "too much memory",
    ),
    "doubling by + of many": (
        (
            "{% set n = namespace(x='aaaaaaaaaa') %}{% for i in range(60) %}"
            "{% set n.x = n.x + n.x + n.x %}{% endfor %}"
        ),
        "larger than",
    ),
    "lists by +": (
        (
            "{% set n = namespace(x=[1]) %}{% for i in range(60) %}"
            "{% set n.x = n.x + n.x + [1] %}{% endfor %}"
        ),
        "larger than",
    ),
    "very many additions": ("{{ " + " + ".join(["'ab'"] * 20_000) + " }}", "recursion|500 parts"),
    "text and a number": ("{{ 'a' + 'b' + 1 }}", "str"),
    "padding by a method": ("{{ 'a'.center(999999999) }}", "unsafe"),
    "padding by a filter": ("{{ 'a' | center(999999999) }}", "No filter named"),
    "padding by %": ("{{ '%999999999d' % 1 }}", "no chat template needs"),
    "padding by format": ("{{ '{:>999999999}'.format('a') }}", "formats in a way"),
    "a growing replacement": (
        "{{ 'axa'.replace('x', 'y' * 1900000).replace('y', 'z' * 1000000) }}",
        "larger than",
    ),
    "a growing replacement by a filter": (
        "{{ ('x' * 1900000) | replace('x', 'yyyy') }}",
        "larger than",
    ),
    "a join": ("{{ ''.join(['a' * 10000] * 190) * 9999 }}", "larger than"),
    "a join by a filter": ("{{ (['a' * 10000] * 190) | join('a' * 1000000) }}", "larger than"),
    "endless output": (
        (
            "{% for i in range(100000) %}{{ 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' * 200 }}"
            "{% endfor %}"
        ),
        "too much memory",
    ),
    "recursion": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
}
# Template → the reason why it is refused.
REFUSED = {
    "the classes of everything": (
        "{{ messages.__class__.__mro__[1].__subclasses__() }}",
        "access to attribute '__class__' of 'list' object is unsafe",
    ),
    "changing the conversation": (
        "{{ messages.append('x') }}",
        "access to attribute 'append' of 'list' object is unsafe",
    ),
    "changing a message": (
        "{{ messages[0].update({'role': 'system'}) }}",
        "access to attribute 'update' of 'dict' object is unsafe",
    ),
    "the template itself": (
        "{{ self.__init__.__globals__ }}",
        "access to attribute '__init__' of 'TemplateReference' object is unsafe",
    ),
    "a global of jinja2": ("{{ cycler('a') }}", "'cycler' is undefined"),
    "calling what it was given": ("{{ messages[0].call() }}", "is not safely callable"),
    "another template": ("{% include '/etc/passwd' %}", "no loader for this environment"),
    "a syntax error": ("{% for message in messages %", "unexpected 'end of template'"),
}
# Attributes that a template cannot see: it writes nothing, as for any undefined value.
HIDDEN = {
    "globals of a function": "{{ raise_exception.__globals__ }}",
    "the class of a namespace": "{{ namespace().__class__ }}",
    "the owner of a method": "{{ ''.upper.__self__ }}",
    "the environment": "{{ context }}{{ environment }}",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_template_that_takes_too_long_or_too_much_memory_is_stopped(name: str) -> None:
    template, reason = BOMBS[name]
    with pytest.raises(
        Mismatch, match=f"the chat template of `x` refuses this conversation: .*{reason}"
    ):
        chat_template.run(template, {"messages": []}, "x")


@pytest.mark.parametrize("name", REFUSED)
def test_a_template_that_reaches_out_of_the_sandbox_is_refused(name: str) -> None:
    template, reason = REFUSED[name]
    messages = [{"role": "user", "content": "x", "call": print}]
    with pytest.raises(Mismatch) as caught:
        chat_template.run(template, {"messages": messages}, "x")
    assert reason in caught.value.message
    assert messages == [{"role": "user", "content": "x", "call": print}]


@pytest.mark.parametrize("name", HIDDEN)
def test_what_lies_outside_of_the_sandbox_is_undefined(name: str) -> None:
    assert chat_template.run(HIDDEN[name], {"messages": []}, "x") == ""


# Template → its text, for one message from `user` with the content " a</think>b ".
RENDERED = {
    "{% generation %}hi{% endgeneration %}": "hi",
    "{{ messages[0].content.split('</think>')[-1].strip() }}": "b",
    "{{ {'b': 1, 'a': 'é'} | tojson(separators=(',', ':'), sort_keys=true) }}": '{"a":"é","b":1}',
    "{{ [1] | tojson(indent=2) }}": "[\n  1\n]",
    "{%- for m in messages -%}{% continue %}{%- endfor -%}x": "x",
    "{% for i in range(6) if i % 2 %}{{ loop.index }}{{ i }} {% endfor %}": "11 23 35 ",
    "{% for m in messages %}{{ loop.index0 }}{{ loop.length }}{{ m.role }}{% endfor %}": "01user",
    "{{ messages[0].missing is defined }}": "False",
    "{{ 'a' + messages[0].role + 'b' + ('c' + 'd') + '' }}": "auserbcd",
    "{{ 1 + 2 + 3.5 }}{{ ([1] + [2] + [3]) | length }}{{ 7 % 2 }}{{ 'a' ~ 1 }}": "6.531a1",
    "{% set n = namespace(a=false) %}{% set n.a = true %}{{ n.a }}": "True",
}  # fmt: skip


@pytest.mark.parametrize("template", RENDERED)
def test_what_real_templates_use_is_rendered(template: str) -> None:
    messages = [{"role": "user", "content": " a</think>b "}]
    assert chat_template.run(template, {"messages": messages}, "x") == RENDERED[template]


def test_the_time_is_written_in_the_form_of_the_template() -> None:
    text = chat_template.run("{{ strftime_now('%d %b %Y') }}", {}, "x")
    assert datetime.datetime.strptime(text, "%d %b %Y")


def test_the_limits_hold_in_other_threads() -> None:
    template, reason = BOMBS["a loop in a loop"]
    with ThreadPoolExecutor() as pool:
        running = [pool.submit(chat_template.run, template, {"messages": []}, "x") for _ in "ab"]
        for one in running:
            with pytest.raises(Mismatch, match=reason):
                one.result()


class RendersWhenWritten:
    """A value whose text comes from a template of its own."""

    def __str__(self) -> str:
        return chat_template.run("{{ 'b' * 1900000 }}", {}, "inner")[0]


def test_a_run_inside_another_run_spends_a_budget_of_its_own() -> None:
    template = "{% for i in range(40) %}{{ value }}{% endfor %}"
    assert chat_template.run(template, {"value": RendersWhenWritten()}, "outer") == "b" * 40


def test_labels_are_the_marks_that_could_pose_as_a_speaker() -> None:
    marks = {
        "<|im_start|>", "<start_of_turn>", "</s>", "[INST]", "[/INST]", "<<SYS>>", "<</SYS>>",
        "<｜x｜>", "[SYSTEM_PROMPT]", "<br>",
    }  # fmt: skip
    assert chat_template.labels(" ".join([*marks, "a < b {{ x[0] }}"])) == marks


# Everything that the templates of today's models do, in our own words.
CONSTRUCTS = {
    "methods in a loop": (
        "{% for m in messages %}{% set c = m.content.strip().split(' "
        "')[-1].lstrip('a').rstrip('\\n') %}{{ c.upper() }}{{ m.get('x', 'y') }}{% endfor %}"
    ),
    "items in a loop": (
        "{% for t in tools %}{% for k, v in t.function.parameters.properties.items() %}"
        "{{ k }}={{ v.type if v.type is string else v.type | join('|') }};{% endfor %}"
        "{% endfor %}"
    ),
    "a macro that calls itself": (
        "{% macro kind(v) %}{% if v is mapping %}{ {%- for k, w in v.items() %}"
        "{{ k }}:{{ kind(w) }},{% endfor -%} }"
        "{% elif v is iterable and v is not string %}[{% for w in v %}"
        "{{ kind(w) }},{% endfor %}]{% else %}{{ v }}{% endif %}{% endmacro %}"
        "{{ kind(tools) }}"
    ),
    "tojson in all ways": (
        "{{ tools | tojson }}{{ tools | tojson(indent=4) }}"
        "{{ tools[0] | tojson(ensure_ascii=False) }}"
        "{{ tools | tojson(separators=(',', ':')) | safe }}"
    ),
    "a namespace": (
        "{% set ns = namespace(last=-1, tools=[]) %}{% for m in messages[::-1] %}"
        "{% if m.role == 'user' and ns.last < 0 %}"
        "{% set ns.last = messages | length - 1 - loop.index0 %}"
        "{% set ns.tools = ns.tools + [m.role] %}{% endif %}{% endfor %}{{ ns.last }}"
        "{{ ns.tools }}"
    ),
    "slices": (
        "{% set rest = messages[1:] %}{{ rest[-1].content[:3] }}"
        "{{ rest[-1]['content'][3:] }}{{ 'abc'[::-1] }}{{ rest[:-1] | length }}"
    ),
    "filters": (
        "{{ messages | map(attribute='role') | list }}"
        "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}"
        "{{ messages | rejectattr('role', 'in', ['user']) | map(attribute='content') | "
        "join('+') }}"
    ),
    "more filters": (
        "{{ 'a b' | title | upper | lower | capitalize | trim | replace('b', 'c') }}"
        "{{ [3, 1] | sort | first }}{{ {'b': 1, 'a': 2} | dictsort }}"
        "{{ [1, 1, 2] | unique | list }}{{ [1, 2] | sum }}{{ ' 7 ' | int + 1 }}"
        "{{ none | default('d', true) }}{{ [1, 2] | reverse | list }}"
        "{{ 'x\\ny' | indent(2) }}"
    ),
    "text": (
        "{{ 'a' ~ 1 ~ none ~ [1] ~ true }}{{ '{} is {0}"
        "{x}'.format('a', x=2) if false else '{} is {x}'.format('a', x=2) }}"
        "{{ 'abc'.removeprefix('a').partition('b') }}"
        "{{ 'a-b'.replace('-', '_').startswith(('a', 'b')) }}"
    ),
    "a call block": (
        "{% macro tag(name) %}<{{ name }}>{{ caller() }}</{{ name }}>{% endmacro %}"
        "{% call tag('think') %}{% for m in messages %}{{ loop.cycle('x', 'y') }}"
        "{% endfor %}{% endcall %}"
    ),
    "a set block": (
        "{% set text %}{% for m in messages %}{{ m.content }}{% endfor %}{% endset %}"
        "{{ text | trim | length }}{{ text[:4] }}"
    ),
    "conditions": (
        "{% for m in messages if m.role != 'system' %}{{ loop.index }}/{{ loop.length }}"
        "{{ loop.previtem.role if loop.previtem is defined and not loop.first }}"
        "{{ loop.nextitem.role or '-' if not loop.last }};{% else %}none{% endfor %}"
        "{{ missing is not defined }}{{ (messages[0].content is string) and not tools is "
        "none }}"
    ),
    "numbers": (
        "{{ 7 // 2 }}{{ 7 / 2 }}{{ 2 ** 8 }}{{ -7 % 3 }}{{ 3 is odd }}{{ 1.25 | round(1) }}"
        "{{ 'ab' * 2 }}{{ [0] * 2 }}{{ range(1, 6, 2) | list }}"
    ),
    "marked as safe": "{% set a = '<b>' | safe %}{{ a }}{{ a ~ '<i>' }}{{ '<&>' | e }}",
}
PROPERTIES = {"a": {"type": "string"}, "b": {"type": ["integer", "null"]}}
TOOL = {
    "type": "function",
    "function": {
        "name": "f",
        "description": "é <x>",
        "parameters": {"properties": PROPERTIES},
    },
}


@pytest.mark.parametrize("name", CONSTRUCTS)
def test_todays_constructs_are_rendered_as_transformers_renders_them(name: str) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    roles = ("system", "user", "assistant", "user")
    messages = [{"role": role, "content": f" {role} says a日本 "} for role in roles]
    given = {"messages": messages, "tools": [TOOL], "add_generation_prompt": True}
    expected = render_jinja_template(
        [messages], tools=[TOOL], chat_template=CONSTRUCTS[name], add_generation_prompt=True
    )[0][0]
    assert expected
    assert chat_template.run(CONSTRUCTS[name], given, "x") == expected
