"""The dialects of tool calls, and which of them a chat template teaches.

Calls are parsed here instead of by transformers' `parse_response`: its templates for responses come
with three families only, close a call at the first closing mark even inside a string, and raise an
error where a call is malformed. Nothing there binds what the model writes.
"""

import functools
import re

from llmchat.tool_syntax.dialect import Dialect

HERMES = Dialect(
    name="hermes",
    detect=r"<tool_call>",
    source="https://huggingface.co/Qwen/Qwen2.5-7B-Instruct: tokenizer_config.json; also Qwen3, "
    "Hermes, SmolLM3, Granite 4",
    open="<tool_call>\n",
    close="\n</tool_call>",
    separator="\n",
    key="arguments",
    marks=("<tool_call>", "</tool_call>"),
)

# The most specific mark first: many templates mention `<tool_call>`.
DIALECTS = (
    Dialect(
        name="harmony",
        detect=r"<\|channel\|>",
        source="https://cookbook.openai.com/articles/openai-harmony",
        channels=True,
        single=True,
        thought_end="<|end|><|start|>assistant",
        before="<|channel|>commentary to=functions.",
        between=" <|constrain|>json<|message|>",
        aliases=(
            "<|start|>assistant<|channel|>commentary to=functions.",
            "<|start|>assistant to=functions.",
        ),
        between_pattern=r"[^{<]*(?:<\|channel\|>[^{<]*)?(?:<\|constrain\|>[^{<]*)?<\|message\|>",
        marks=("<|channel|>", "<|constrain|>", "<|message|>", "<|start|>", "<|end|>"),
        drops=(
            "<|start|>assistant<|channel|>final<|message|>",
            "<|start|>assistant<|channel|>commentary<|message|>",
            "<|channel|>final<|message|>",
            "<|channel|>commentary<|message|>",
            "<|end|>",
            "<|call|>",
        ),
        stops=("<|call|>", "<|return|>"),
    ),
    Dialect(
        name="deepseek-v3.1",
        detect=r"(?=[\s\S]*<｜tool▁calls▁begin｜>)(?![\s\S]*```json)",
        source="https://huggingface.co/deepseek-ai/DeepSeek-V3.1: chat_template.jinja",
        open="<｜tool▁calls▁begin｜>",
        close="<｜tool▁calls▁end｜>",
        several=True,
        before="<｜tool▁call▁begin｜>",
        between="<｜tool▁sep｜>",
        after="<｜tool▁call▁end｜>",
        marks=(
            "<｜tool▁calls▁begin｜>",
            "<｜tool▁calls▁end｜>",
            "<｜tool▁call▁begin｜>",
            "<｜tool▁call▁end｜>",
            "<｜tool▁sep｜>",
        ),
    ),
    Dialect(
        name="deepseek-v3",
        detect=r"<｜tool▁calls▁begin｜>",
        source="https://huggingface.co/deepseek-ai/DeepSeek-V3-0324: tokenizer_config.json",
        open="<｜tool▁calls▁begin｜>",
        close="<｜tool▁calls▁end｜>",
        several=True,
        separator="\n",
        before="<｜tool▁call▁begin｜>function<｜tool▁sep｜>",
        between="\n```json\n",
        after="\n```<｜tool▁call▁end｜>",
        marks=(
            "<｜tool▁calls▁begin｜>",
            "<｜tool▁calls▁end｜>",
            "<｜tool▁call▁begin｜>",
            "<｜tool▁call▁end｜>",
            "<｜tool▁sep｜>",
        ),
    ),
    Dialect(
        name="qwen3-coder",
        detect=r"<function=(?![\s\S]*<\|start_header_id\|>)",
        source="https://huggingface.co/Qwen/Qwen3-Coder-30B-A3B-Instruct: chat_template.jinja; "
        "also Qwen3.5, Nemotron 3",
        before="<tool_call>\n<function=",
        between=">\n",
        after="</function>\n</tool_call>",
        aliases=("<function=",),
        separator="\n",
        notation="xml",
        parameter=("<parameter=", ">\n", "\n</parameter>\n"),
        marks=("<tool_call>", "</tool_call>"),
    ),
    Dialect(
        name="functionary-3.1",
        detect=r"<function=",
        source="https://github.com/MeetKai/functionary: tests/prompt_test_v3-llama3.1.txt",
        before="<function=",
        between=">",
        after="</function>",
        stops=("<|eom_id|>",),
    ),
    Dialect(
        name="functionary-3.2",
        detect=r">>>",
        source="https://github.com/MeetKai/functionary: tests/prompt_test_v3.llama3.txt",
        before=">>>",
        between="\n",
        at_start=True,
        drops=(">>>all\n",),
    ),
    Dialect(
        name="minicpm5",
        detect=r"<function name=",
        source="https://huggingface.co/openbmb/MiniCPM5-1B: chat_template.jinja",
        before='<function name="',
        between='">',
        after="</function>",
        notation="xml",
        parameter=('<param name="', '">', "</param>"),
        marks=("<function", "</function>", "<param", "</param>"),
    ),
    Dialect(
        name="glm-4.5",
        detect=r"<arg_key>",
        source="https://huggingface.co/zai-org/GLM-4.5: chat_template.jinja",
        before="<tool_call>",
        between="\n",
        after="</tool_call>",
        separator="\n",
        notation="xml",
        parameter=("<arg_key>", "</arg_key>\n<arg_value>", "</arg_value>\n"),
        marks=(
            "<tool_call>",
            "</tool_call>",
            "<arg_key>",
            "</arg_key>",
            "<arg_value>",
            "</arg_value>",
        ),
        stops=("<|observation|>", "<|user|>"),
    ),
    Dialect(
        name="glm-4",
        detect=r"<\|observation\|>",
        source="https://huggingface.co/zai-org/GLM-4-9B-0414: chat_template.jinja",
        between="\n",
        at_start=True,
        single=True,
        stops=("<|observation|>", "<|user|>"),
    ),
    Dialect(
        name="gemma-4",
        detect=r"<\|tool_call>",
        source="https://huggingface.co/google/gemma-4-E2B-it: chat_template.jinja",
        before="<|tool_call>call:",
        between="{",
        after="}<tool_call|>",
        notation="gemma",
        quote='<|"|>',
        marks=("<|tool_call>", "<tool_call|>", '<|"|>'),
        stops=("<|tool_response>",),
    ),
    Dialect(
        name="functiongemma",
        detect=r"<start_function_call>",
        source="https://huggingface.co/google/functiongemma-270m-it: chat_template.jinja",
        before="<start_function_call>call:",
        between="{",
        after="}<end_function_call>",
        notation="gemma",
        quote="<escape>",
        marks=("<start_function_call>", "<end_function_call>", "<escape>"),
        stops=("<start_function_response>",),
    ),
    Dialect(
        name="lfm2",
        detect=r"<\|tool_call_start\|>",
        source="https://huggingface.co/LiquidAI/LFM2-1.2B: chat_template.jinja",
        open="<|tool_call_start|>[",
        close="]<|tool_call_end|>",
        several=True,
        separator=", ",
        between="(",
        after=")",
        notation="python",
        marks=("<|tool_call_start|>", "<|tool_call_end|>"),
    ),
    Dialect(
        name="olmo-3",
        detect=r"<function_calls>",
        source="https://huggingface.co/allenai/Olmo-3-7B-Instruct: chat_template.jinja",
        open="<function_calls>",
        close="</function_calls>",
        several=True,
        separator="\n",
        between="(",
        after=")",
        notation="python",
        marks=("<function_calls>", "</function_calls>"),
    ),
    Dialect(
        name="mistral",
        detect=r"\[ARGS\]",
        source="https://github.com/mistralai/mistral-common: tokens/tokenizers/instruct.py, v11",
        before="[TOOL_CALLS]",
        between="[ARGS]",
        between_pattern=r"\s*(?:\[CALL_ID\]\s*\w*\s*)?\[ARGS\]",
        marks=("[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"),
    ),
    Dialect(
        name="mistral-7",
        detect=r"\[TOOL_CALLS\]",
        source="https://github.com/mistralai/mistral-common: tokens/tokenizers/instruct.py, v3, v7",
        open="[TOOL_CALLS]",
        key="arguments",
        array=True,
        marks=("[TOOL_CALLS]",),
    ),
    Dialect(
        name="phi-4-mini",
        detect=r"<\|/tool_call\|>",
        source="https://huggingface.co/microsoft/Phi-4-mini-instruct: tokenizer_config.json",
        open="<|tool_call|>",
        close="<|/tool_call|>",
        key="arguments",
        array=True,
        marks=("<|tool_call|>", "<|/tool_call|>"),
    ),
    Dialect(
        name="granite-3",
        detect=r"<\|tool_call\|>|<\|start_of_role\|>(?![\s\S]*<tool_call>)",
        source="https://huggingface.co/ibm-granite/granite-3.3-2b-instruct: tokenizer_config.json",
        open="<|tool_call|>",
        key="arguments",
        array=True,
        marks=("<|tool_call|>",),
    ),
    HERMES,
    Dialect(
        name="llama-pythonic",
        detect=r"(?:\[func_name1\(|function calls? in (?:a )?python|pythonic)",
        source="https://www.llama.com/docs/model-cards-and-prompt-formats/llama4: zero-shot calls",
        open="[",
        close="]",
        several=True,
        separator=", ",
        between="(",
        after=")",
        notation="python",
        at_start=True,
        stops=("<|eom|>", "<|eom_id|>"),
    ),
    Dialect(
        name="llama-3",
        detect=r"<\|python_tag\|>|\"parameters\": ",
        source="https://www.llama.com/docs/model-cards-and-prompt-formats/llama3_1: JSON calls",
        open="<|python_tag|>",
        separator="; ",
        key="parameters",
        marks=("<|python_tag|>",),
        stops=("<|eom_id|>",),
        plain=True,
    ),
)
# For templates with tools that teach none of these syntaxes: any bare JSON is a call.
PLAIN = Dialect(
    name="json",
    detect=r"",
    source="several families write a call as JSON, and nothing else",
    key="arguments",
    plain=True,
)
# For formats without tools: what llmchat itself writes into the prompt is Hermes' form.
GENERIC = HERMES


@functools.lru_cache(maxsize=64)
def detect(template: str) -> Dialect:
    """The dialect that a chat template with tools teaches, by the most specific mark in its text.

    A template without any known mark expects bare JSON.
    """
    return next((one for one in DIALECTS if re.search(one.detect, template)), PLAIN)
