"""Chat templates that write tools as each family's own do, shortened.

The sources are named in llmchat/tool_syntax/table.py. `CALL` in a template stands for the calls of
a message, `TOOLS` for the definitions.
"""

_LISTED = "{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}"
_EACH = "{%- for call in message.tool_calls %}{%- set f = call.function %}"
_NAME_AND_JSON = '{"name": "{{ f.name }}", "arguments": {{ f.arguments | tojson }}}'
_BARE = "{{ value if value is string else value | tojson }}"


def _turns(start: str, end: str, call: str, *, tool: str = "tool", model: str = "assistant") -> str:
    """A template whose turns are start, text and end. call: the calls of a message."""
    role = f"{{{{ '{model}' if role == 'assistant' else '{tool}' if role == 'tool' else role }}}}"
    opening = start.replace("ROLE", role)
    cue = start.replace("ROLE", model)
    return (
        f"{{%- if tools %}}{start.replace('ROLE', 'system')}TOOLS{end}{{% endif %}}"
        "{%- for message in messages %}{%- set role = message.role %}"
        f"{opening}{{{{ message.content }}}}{{%- if message.tool_calls %}}{call}{{% endif %}}{end}"
        f"{{% endfor %}}{{%- if add_generation_prompt %}}{cue}{{% endif %}}"
    ).replace("TOOLS", _LISTED)


def _chatml(call: str, **roles: str) -> str:
    return _turns("<|im_start|>ROLE\n", "<|im_end|>\n", call, **roles)


def _llama(call: str, **roles: str) -> str:
    return _turns("<|start_header_id|>ROLE<|end_header_id|>\n\n", "<|eot_id|>", call, **roles)


_KEYWORDS = (
    "{%- for name, value in f.arguments.items() %}{{ ', ' if not loop.first }}{{ name }}="
    "{{ value | tojson if value is not boolean else value }}{% endfor %}"
)
_PYTHON = _EACH + "{{ ', ' if not loop.first }}{{ f.name }}(" + _KEYWORDS + "){% endfor %}"
_PYTHON_LINES = _EACH + "{{ '\\n' if not loop.first }}{{ f.name }}(" + _KEYWORDS + "){% endfor %}"
_GEMMA_VALUE = (
    "{%- macro argument(value, quote) %}"
    "{%- if value is string %}{{ quote + value + quote }}"
    "{%- elif value is mapping %}{{ '{' }}{% for key, one in value | dictsort %}"
    "{{ ',' if not loop.first }}{{ key }}:{{ argument(one, quote) }}{% endfor %}{{ '}' }}"
    "{%- elif value is sequence %}[{% for one in value %}{{ ',' if not loop.first }}"
    "{{ argument(one, quote) }}{% endfor %}]{% else %}{{ value | tojson }}{% endif %}{% endmacro %}"
)


def _gemma(call: str, quote: str, end: str) -> str:
    return (
        f"{_EACH}{call}{{{{ f.name }}}}{{{{ '{{' }}}}"
        "{%- for key, one in f.arguments | dictsort %}{{ ',' if not loop.first }}{{ key }}:"
        f"{{{{ argument(one, '{quote}') }}}}{{% endfor %}}{{{{ '}}' }}}}{end}{{% endfor %}}"
    )


_DEEPSEEK = (
    "{%- if tools %}TOOLS{% endif %}{%- for message in messages %}"
    "{%- if message.role == 'user' %}<｜User｜>{{ message.content }}"
    "{%- elif message.role == 'tool' %}<｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>"
    "{{ message.content }}<｜tool▁output▁end｜><｜tool▁outputs▁end｜>"
    "{%- else %}<｜Assistant｜>{{ message.content }}{% if message.tool_calls %}"
    "<｜tool▁calls▁begin｜>CALL<｜tool▁calls▁end｜>{% endif %}<｜end▁of▁sentence｜>{% endif %}"
    "{% endfor %}{%- if add_generation_prompt %}<｜Assistant｜>{% endif %}"
).replace("TOOLS", _LISTED)
_MISTRAL = (
    "{%- if tools %}[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}"
    "{%- for message in messages %}{%- if message.role == 'user' %}[INST]{{ message.content }}"
    "[/INST]{%- elif message.role == 'tool' %}[TOOL_RESULTS]{{ message.content }}[/TOOL_RESULTS]"
    "{%- else %}{{ message.content }}{% if message.tool_calls %}CALL{% endif %}</s>{% endif %}"
    "{% endfor %}"
)
_HERMES = (
    _EACH
    + ("{{ '\\n' if message.content or not loop.first }}<tool_call>\n" + _NAME_AND_JSON)
    + "\n</tool_call>{% endfor %}"
)
_ARRAY = "[" + _EACH + "{{ ', ' if not loop.first }}" + _NAME_AND_JSON + "{% endfor %}]"

TEMPLATES: dict[str, str] = {
    "hermes": _chatml(_HERMES),
    "qwen3-coder": _chatml(
        _EACH + "{{ '\\n' if not loop.first }}<tool_call>\n<function={{ f.name }}>\n"
        "{%- for name, value in f.arguments.items() %}{{ '\\n' }}<parameter={{ name }}>\n"
        + _BARE + "\n</parameter>{% endfor %}{{ '\\n' }}</function>\n</tool_call>{% endfor %}"
    ),
    "seed-oss": _turns(
        "<seed:bos>ROLE\n", "<seed:eos>",
        _EACH + "{{ '\\n' if not loop.first }}<seed:tool_call>\n<function={{ f.name }}>\n"
        "{%- for name, value in f.arguments.items() %}{{ '\\n' }}<parameter={{ name }}>"
        + _BARE + "</parameter>{% endfor %}{{ '\\n' }}</function>\n</seed:tool_call>{% endfor %}"
    ),
    "glm-4.5": _turns(
        "<|ROLE|>\n", "",
        _EACH + "{{ '\\n' if not loop.first }}<tool_call>{{ f.name }}\n"
        "{%- for name, value in f.arguments.items() %}{{ '\\n' }}<arg_key>{{ name }}</arg_key>\n"
        "<arg_value>" + _BARE + "</arg_value>{% endfor %}{{ '\\n' }}</tool_call>{% endfor %}",
        tool="observation",
    ),
    "glm-4": _turns(
        "<|ROLE|>\n", "", _EACH + "{{ f.name }}\n{{ f.arguments | tojson }}{% endfor %}",
        tool="observation",
    ) + "{# <|observation|> #}",
    "minicpm5": _chatml(
        _EACH + '<function name="{{ f.name }}">'
        '{%- for name, value in f.arguments.items() %}<param name="{{ name }}">'
        + _BARE + "</param>{% endfor %}</function>{% endfor %}"
    ),
    "gemma-4": _GEMMA_VALUE + _turns(
        "<|turn>ROLE\n", "<turn|>\n",
        _gemma("<|tool_call>call:", '<|"|>', "<tool_call|>")
        + "{%- for one in message.tool_responses or [] %}<|tool_response>response:{{ one.name }}"
        "{{ '{value:' + argument(one.response, '<|\"|>') + '}' }}<tool_response|>{% endfor %}",
        model="model",
    ),
    "functiongemma": _GEMMA_VALUE + _turns(
        "<start_of_turn>ROLE\n", "<end_of_turn>\n",
        _gemma("<start_function_call>call:", "<escape>", "<end_function_call>"), model="model",
    ),
    "lfm2": _chatml("<|tool_call_start|>[" + _PYTHON + "]<|tool_call_end|>"),
    "olmo-3": _chatml(
        "<function_calls>" + _PYTHON_LINES + "</function_calls>", tool="environment"
    ),
    "mistral": _MISTRAL.replace(
        "CALL", _EACH + "[TOOL_CALLS]{{ f.name }}[ARGS]{{ f.arguments | tojson }}{% endfor %}"
    ),
    "kimi-k2": _turns(
        "<|im_ROLE|>ROLE<|im_middle|>", "<|im_end|>",
        "<|tool_calls_section_begin|>" + _EACH + "<|tool_call_begin|>functions.{{ f.name }}:"
        "{{ loop.index0 }}<|tool_call_argument_begin|>{{ f.arguments | tojson }}"
        "<|tool_call_end|>{% endfor %}<|tool_calls_section_end|>",
    ),
    "apertus": _turns(
        "<|ROLE_start|>", "<|assistant_end|>",
        "<|tools_prefix|>[" + _EACH + "{{ ', ' if not loop.first }}"
        '{"{{ f.name }}": {{ f.arguments | tojson }}}{% endfor %}]<|tools_suffix|>',
    ),
    "command-r7b": _turns(
        "<|ROLE_TOKEN|>", "<|END_OF_TURN_TOKEN|>",
        "<|START_ACTION|>[" + _EACH + "{{ ', ' if not loop.first }}"
        '{"tool_name": "{{ f.name }}", "parameters": {{ f.arguments | tojson }}}'
        "{% endfor %}]<|END_ACTION|>",
    ),
    "nemotron-nano-2": _turns(
        "<SPECIAL_11>ROLE\n", "<SPECIAL_12>\n", "<TOOLCALL>" + _ARRAY + "</TOOLCALL>"
    ),
    "mistral-7": _MISTRAL.replace("CALL", "[TOOL_CALLS]" + _ARRAY),
    "phi-4-mini": _turns("<|ROLE|>", "<|end|>", "<|tool_call|>" + _ARRAY + "<|/tool_call|>"),
    "granite-3": _turns(
        "<|start_of_role|>ROLE<|end_of_role|>", "<|end_of_text|>\n", "<|tool_call|>" + _ARRAY
    ),
    "deepseek-v3": _DEEPSEEK.replace(
        "CALL",
        _EACH + "{{ '\\n' if not loop.first }}<｜tool▁call▁begin｜>function<｜tool▁sep｜>"
        "{{ f.name }}\n```json\n{{ f.arguments | tojson }}\n```<｜tool▁call▁end｜>{% endfor %}",
    ),
    "deepseek-v3.1": _DEEPSEEK.replace(
        "CALL",
        _EACH + "<｜tool▁call▁begin｜>{{ f.name }}<｜tool▁sep｜>{{ f.arguments | tojson }}"
        "<｜tool▁call▁end｜>{% endfor %}",
    ),
    "functionary-3.1": _llama(
        _EACH + "<function={{ f.name }}>{{ f.arguments | tojson }}</function>{% endfor %}"
    ),
    "functionary-3.2": (
        "{%- if tools %}TOOLS{% endif %}{%- for message in messages %}<|start_header_id|>"
        "{{ message.role }}<|end_header_id|>\n\n{% if message.role == 'assistant' %}"
        "{% if message.content %}>>>all\n{{ message.content }}{% endif %}"
        "{% for call in message.tool_calls or [] %}>>>{{ call.function.name }}\n"
        "{{ call.function.arguments | tojson }}{% endfor %}{% else %}{{ message.content }}"
        "{% endif %}<|eot_id|>{% endfor %}{%- if add_generation_prompt %}<|start_header_id|>"
        "assistant<|end_header_id|>\n\n>>>{% endif %}"
    ).replace("TOOLS", _LISTED),
    "llama-3": _llama(
        _EACH + "{{ '; ' if not loop.first }}"
        '{"name": "{{ f.name }}", "parameters": {{ f.arguments | tojson }}}{% endfor %}',
        tool="ipython",
    ) + "{# <|python_tag|> #}",
    "llama-pythonic": _llama("[" + _PYTHON + "]", tool="ipython") + "{# [func_name1( #}",
    "harmony": (
        "{%- if tools %}<|start|>developer<|message|>TOOLS<|end|>{% endif %}"
        "{%- for message in messages %}{%- if message.role == 'tool' %}<|start|>functions"
        " to=assistant<|channel|>commentary<|message|>{{ message.content }}<|end|>"
        "{%- elif message.role == 'assistant' and message.tool_calls %}"
        + _EACH + "<|start|>assistant<|channel|>commentary to=functions.{{ f.name }} <|constrain|>"
        "json<|message|>{{ f.arguments | tojson }}{% endfor %}<|call|>"
        "{%- elif message.role == 'assistant' %}<|start|>assistant<|channel|>final<|message|>"
        "{{ message.content }}<|end|>{% else %}<|start|>{{ message.role }}<|message|>"
        "{{ message.content }}<|end|>{% endif %}{% endfor %}"
        "{%- if add_generation_prompt %}<|start|>assistant{% endif %}"
    ).replace("TOOLS", _LISTED),
}  # fmt: skip
