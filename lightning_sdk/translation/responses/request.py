"""Fields of a request to `/responses`, each read, renamed for chat completions, dropped or refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_sdk.errors import Untranslatable

#: No answer depends on these, see the package's docstring.
_HARMLESS = frozenset({
    "metadata", "user", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
    "prompt_cache_options", "max_tool_calls", "truncation", "access_programs",
})  # fmt: skip
_READ = frozenset({
    "model", "input", "instructions", "tools", "tool_choice", "parallel_tool_calls", "text", "max_output_tokens",
    "reasoning", "previous_response_id", "stream", "stream_options", "include", "top_logprobs",
})  # fmt: skip
#: Called the same in chat completions. All but the first two are not part of the Responses API, and go to engines that
#: offer them there too.
_SAME = (
    "temperature", "top_p", "parallel_tool_calls", "seed", "stop", "top_k", "min_p", "min_tokens", "logit_bias",
    "frequency_penalty", "presence_penalty", "repetition_penalty", "chat_template_kwargs",
)  # fmt: skip
#: More output to include. The rest of what there is tells of tools that run at the provider, which are refused.
_INCLUDES = (
    "reasoning.encrypted_content", "message.output_text.logprobs", "message.input_image.image_url", "web_search_call.",
    "file_search_call.", "code_interpreter_call.", "computer_call_output.",
)  # fmt: skip
#: What to do about a field that means something at the provider alone.
_INSTEAD = {
    "conversation": "the conversation is kept by the provider; send its messages in input",
    "prompt": "the prompt template is kept by the provider; write its text into instructions or input",
    "background": "a call that is trained is answered at once; leave background out",
    "moderation": "the engine does not moderate; call client.moderations yourself",
    "context_management": "the engine does not compact a conversation; shorten input yourself",
}


def read(body: Mapping[str, Any]) -> dict[str, Any]:
    """`body` without its nulls, and with `include` and `tools` as lists.

    Raises:
        Untranslatable: for a field, or a value, that chat completions cannot express.
    """
    given = {name: value for name, value in body.items() if value is not None}
    if given.get("background") is False:
        del given["background"]
    for name, value in given.items():
        if name in _INSTEAD:
            raise Untranslatable(f"{name}={value!r} cannot be used by a role that is trained: {_INSTEAD[name]}")
        if name not in _READ and name not in _SAME and name not in _HARMLESS:
            raise Untranslatable(f"{name}={value!r} has no equivalent in chat completions; leave it out")
    for name in given.get("include") or ():
        if not str(name).startswith(_INCLUDES):
            raise Untranslatable(f"include={name!r} has no equivalent in chat completions; leave it out")
    given["include"] = list(given.get("include") or ())
    given["tools"] = [_tool(tool, f"tools[{place}]") for place, tool in enumerate(given.get("tools") or ())]
    return given


def chat_of(body: Mapping[str, Any], messages: list[dict[str, Any]]) -> dict[str, Any]:
    """The chat request of a body that was `read`, with these messages after the instructions."""
    chat: dict[str, Any] = {"messages": messages}
    if body.get("instructions"):
        if not isinstance(body["instructions"], str):
            raise Untranslatable(f"instructions={body['instructions']!r}: expected text")
        chat["messages"] = [{"role": "system", "content": body["instructions"]}, *messages]
    if not chat["messages"]:
        raise Untranslatable("input is missing: give text or a list of items")
    chat.update({name: body[name] for name in ("model", *_SAME) if name in body})
    if "max_output_tokens" in body:
        chat["max_tokens"] = body["max_output_tokens"]
    chat.update(_tools(body) if body["tools"] else {})
    chat.update(_text(body.get("text") or {}))
    chat.update(_reasoning(body.get("reasoning") or {}))
    if body.get("top_logprobs"):
        chat.update(logprobs=True, top_logprobs=body["top_logprobs"])
    elif "message.output_text.logprobs" in body["include"]:
        chat["logprobs"] = True
    if body.get("stream"):
        chat.update(stream=True, stream_options={"include_usage": True})
    if not body["tools"]:
        chat.pop("parallel_tool_calls", None)
    return chat


def _tool(tool: Any, where: str) -> dict[str, Any]:
    kind = tool.get("type") if isinstance(tool, Mapping) else tool
    if kind != "function":
        raise Untranslatable(
            f"{where}.type={kind!r} runs at the provider or has no equivalent in chat completions; offer the same as a "
            "function tool that your own code runs, or leave it to a role that is not trained"
        )
    if not isinstance(tool.get("name"), str):
        raise Untranslatable(f"{where}: a function tool needs a name; got {dict(tool)!r}")
    if tool.get("defer_loading"):
        raise Untranslatable(f"{where}.defer_loading=True: there is no tool search; offer the tool directly")
    return dict(tool)


def _tools(body: Mapping[str, Any]) -> dict[str, Any]:
    tools, choice = body["tools"], body.get("tool_choice")
    if isinstance(choice, Mapping):
        kind = choice.get("type")
        if kind == "allowed_tools":
            # The engine sees only the tools that are allowed, which is what the field means.
            allowed = {tool.get("name") for tool in choice.get("tools") or ()}
            tools, choice = [tool for tool in tools if tool["name"] in allowed], choice.get("mode")
        elif kind == "function":
            choice = {"type": "function", "function": {"name": choice.get("name")}}
        else:
            raise Untranslatable(f"tool_choice={dict(choice)!r} has no equivalent; use 'auto' or a function's name")
    chat: dict[str, Any] = {"tools": [_chat_tool(tool) for tool in tools]}
    if choice is not None:
        chat["tool_choice"] = choice
    return chat if tools else {}


def _chat_tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    function = {"name": tool["name"], "description": tool.get("description"), "parameters": tool.get("parameters")}
    if function["parameters"] is None:
        function["parameters"] = {"type": "object", "properties": {}}
    function["strict"] = tool.get("strict") or None  # not strict is what chat completions do when nothing is said
    return {"type": "function", "function": {name: value for name, value in function.items() if value is not None}}


def _text(text: Mapping[str, Any]) -> dict[str, Any]:
    chat: dict[str, Any] = {}
    form = text.get("format") or {"type": "text"}
    if form.get("type") == "json_schema":
        schema = {
            name: form[name] for name in ("name", "description", "schema", "strict") if form.get(name) is not None
        }
        chat["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif form.get("type") == "json_object":
        chat["response_format"] = {"type": "json_object"}
    elif form.get("type") != "text":
        raise Untranslatable(f"text.format={form!r} has no equivalent; use json_schema, json_object or text")
    if text.get("verbosity") is not None:
        chat["verbosity"] = text["verbosity"]
    return chat


def _reasoning(reasoning: Mapping[str, Any]) -> dict[str, Any]:
    for name, value in reasoning.items():
        if name not in ("effort", "summary", "generate_summary") and value is not None:
            raise Untranslatable(f"reasoning.{name}={value!r} has no equivalent in chat completions; leave it out")
    return {"reasoning_effort": reasoning["effort"]} if reasoning.get("effort") is not None else {}
