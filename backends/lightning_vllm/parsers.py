"""Which of vLLM's parsers reads a model's tool calls, by how its chat template writes them."""

from __future__ import annotations

#: What a template contains -> vLLM's name of the parser; the most specific first.
_MARKS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("<|channel|>", "<|constrain|>"), "openai"),
    (("<tool_call>", "<arg_key>"), "glm45"),
    (("<tool_call>", "<function="), "qwen3_coder"),
    (("<tool_call>",), "hermes"),
    (("[TOOL_CALLS]",), "mistral"),
    (("<|tool_calls_section_begin|>",), "kimi_k2"),
    (("<｜tool▁calls▁begin｜>",), "deepseek_v3"),
    (("<|python_tag|>",), "llama3_json"),
    (('"parameters": dictionary of argument name',), "llama3_json"),
)
NONE = "none"


def parser_of(template: str) -> str:
    """vLLM's name of the parser for models with this chat template, or 'none' if no known parser fits."""
    return next((name for marks, name in _MARKS if all(mark in template for mark in marks)), NONE)
