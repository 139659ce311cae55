"""Chat templates whose way to offer tools misleads small models, put right where it was measured.

The score is that of `benchmarks/tool_tasks.py`; see docs/tools.md and docs/log.md.
"""

# The template of Qwen2.5 doubles the braces of the call that it shows, unlike those of the calls in
# earlier answers. Without the sentences, the 1.5B model makes more calls where none is needed.
_QWEN_2_5 = r"<tool_call>\n{{\"name\": <function-name>, \"arguments\": <args-json-object>}}\n"
_CALL = r"<tool_call>\n{\"name\": <function-name>, \"arguments\": <args-json-object>}\n"
_TOOLS = r'"\n\n# Tools\n\n'
_SENTENCES = (
    r'" Call a function only if the question needs it. Otherwise answer in plain text, without'
    r" JSON.\n\n# Tools\n\n"
)


def amended(template: str) -> str:
    """The template that offers tools better; the same one if it needs no change."""
    if _QWEN_2_5 not in template:
        return template
    return template.replace(_QWEN_2_5, _CALL).replace(_TOOLS, _SENTENCES)
