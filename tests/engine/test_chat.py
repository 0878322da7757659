"""Chat templates, prompts, and the memory of what was sampled."""

import random
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from lightning_embedded.engine.engine import Engine
from lightning_embedded.serving.chat import Chat
from lightning_embedded.text.chat_template import Template, TemplateRefused
from lightning_embedded.text.growing_text import Decode, Text
from lightning_sdk.capture.seam import ROLLOUT_HEADER
from tests.engine.served_engine import TEMPLATE, Service

QWEN = """{%- if tools %}
{{- '<|im_start|>system\\n' }}
{%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
{{- "# Tools\\n<tools>" }}
{%- for tool in tools %}{{- "\\n" }}{{- tool | tojson }}{%- endfor %}
{{- "\\n</tools><|im_end|>\\n" }}
{%- elif messages[0].role == 'system' %}
{{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
{%- if message.role == "user" or (message.role == "system" and not loop.first) %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
{%- elif message.role == "assistant" %}
{{- '<|im_start|>' + message.role }}
{%- if message.content %}{{- '\\n' + message.content }}{%- endif %}
{%- for tool_call in message.tool_calls %}
{%- if tool_call.function is defined %}{%- set tool_call = tool_call.function %}{%- endif %}
{{- '\\n<tool_call>\\n{"name": "' + tool_call.name + '", "arguments": ' }}
{{- tool_call.arguments | tojson + '}\\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- elif message.role == "tool" %}
{{- '<|im_start|>user\\n<tool_response>\\n' + message.content + '\\n</tool_response><|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""
LLAMA = """{{ bos_token }}{% for message in messages %}{% if message['role'] == 'tool' %}
<|start_header_id|>ipython<|end_header_id|>

{{ message['content'] | tojson }}{{ eos_token }}{% elif 'tool_calls' in message %}
{%- if not message.tool_calls | length == 1 %}{{- raise_exception("one call at a time") }}{% endif %}
{{- '{"name": "' + message.tool_calls[0].function.name + '", "parameters": ' }}
{{- message.tool_calls[0].function.arguments | tojson }}{{- "}" + eos_token }}{% else %}
    {% generation %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim }}
    {% endgeneration %}{{ eos_token }}{% endif %}{% if loop.index > 90 %}{% break %}{% endif %}{% endfor %}
{% set ns = namespace(found=false) %}{% if add_generation_prompt %}{% set ns.found = true %}{{ ns.found }}{% endif %}"""
TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "calculator",
            "description": "Älter <b>& newer</b>",
            "parameters": {"type": "object", "properties": {"expression": {"type": "string"}}},
        },
    }
]


def call(arguments: Any) -> dict[str, Any]:
    function = {"name": "calculator", "arguments": arguments}
    return {"role": "assistant", "content": "", "tool_calls": [{"id": "c1", "type": "function", "function": function}]}


def conversation(arguments: Any) -> list[dict[str, Any]]:
    return [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "2 + 2? <é>"},
        call(arguments),
        {"role": "tool", "content": "4", "tool_call_id": "c1"},
        {"role": "assistant", "content": " It is 4. "},
        {"role": "user", "content": "Thanks"},
    ]


@pytest.mark.parametrize("source", [TEMPLATE, QWEN, LLAMA], ids=["spark", "qwen", "llama"])
@pytest.mark.parametrize("tools", [None, TOOLS], ids=["plain", "tools"])
def test_renders_what_transformers_renders(
    source: str, tools: list[dict[str, Any]] | None, tokenizer: PreTrainedTokenizerFast
) -> None:
    """The same text as `apply_chat_template`, which gets arguments as an object, from arguments as OpenAI's text."""
    ours = Template(source, dict(tokenizer.special_tokens_map)).render(conversation('{"expression": "2 + 2"}'), tools)
    theirs = tokenizer.apply_chat_template(
        conversation({"expression": "2 + 2"}),
        tools=tools,
        chat_template=source,
        tokenize=False,
        add_generation_prompt=True,
    )
    assert ours == theirs


@pytest.mark.parametrize("source", [TEMPLATE, QWEN, LLAMA], ids=["spark", "qwen", "llama"])
def test_arguments_are_printed_as_they_were_written(source: str, tokenizer: PreTrainedTokenizerFast) -> None:
    """Odd spacing in sampled arguments survives, whether the template wants text or an object."""
    odd = '{"expression":   "2 +\\u0020 2" }'
    assert odd in Template(source, dict(tokenizer.special_tokens_map)).render(conversation(odd), None)


def test_the_template_may_refuse(tokenizer: PreTrainedTokenizerFast) -> None:
    """A template's own words reach the user, and templates cannot leave their sandbox."""
    messages = conversation("{}")
    messages[2]["tool_calls"] *= 2
    with pytest.raises(TemplateRefused, match="one call at a time"):
        Template(LLAMA, dict(tokenizer.special_tokens_map)).render(messages, None)
    with pytest.raises(TemplateRefused, match="unsafe"):
        Template("{{ messages.__class__.__mro__ }}", {}).render(messages, None)


def test_the_next_prompt_starts_with_the_sampled_ids(engine: Engine, tokenizer: PreTrainedTokenizerFast) -> None:
    """A completion sampled in an unusual tokenisation is found again in the next turn's prompt, exactly, twice."""
    chat = Chat(tokenizer, engine.decode)
    messages: list[dict[str, Any]] = [{"role": "user", "content": "What is twelve plus thirty?"}]
    for answer in ("calculator 12", "thirty"):
        text, prompt = chat.prompt(messages, None)
        odd = [tokenizer.convert_tokens_to_ids(t) for t in answer.replace(" ", "Ġ")] + [tokenizer.eos_token_id]
        assert odd[:-1] != chat.encode(answer)
        chat.remember(text, prompt, odd)
        messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": "And?"}]
        after, ids = chat.prompt(messages, None)
        assert ids[: len(prompt) + len(odd)] == prompt + odd
        assert ids[len(prompt) + len(odd) :] == chat.encode(
            "\n<|im_start|>user\nAnd?<|im_end|>\n<|im_start|>assistant\n"
        )
        assert engine.decode(ids) == after
    messages[0]["content"] = "What is thirteen?"
    assert chat.prompt(messages, None)[1] == chat.encode(chat.prompt(messages, None)[0])


def test_rollouts_that_say_the_same_keep_their_own_ids(service: Service, tokenizer: PreTrainedTokenizerFast) -> None:
    """The next prompt of each begins with what that rollout sampled; one that sampled nothing gets no other's ids."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": "What is twelve plus thirty?"}]
    end, answer = tokenizer.eos_token_id, "plus"
    sampled = {"a": [*map(tokenizer.convert_tokens_to_ids, answer), end], "b": [*service.chat.encode(answer), end]}
    assert sampled["a"] != sampled["b"] and tokenizer.decode(sampled["a"]) == tokenizer.decode(sampled["b"])
    prompts = {}
    for rollout in ("a", "b"):
        text, prompts[rollout] = service.chat.prompt(messages, None, rollout=rollout)
        service.chat.remember(text, prompts[rollout], sampled[rollout], rollout=rollout)
    messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": "And?"}]
    with service.client() as client:
        for rollout, expected in (*sampled.items(), ("c", sampled["b"]), ("", sampled["b"])):
            reply: Any = client.chat.completions.create(
                model="tiny",
                messages=messages,
                max_tokens=1,
                extra_body={"return_token_ids": True},
                extra_headers={ROLLOUT_HEADER: rollout} if rollout else {},
            )
            start = len(prompts["a"])
            assert reply.prompt_token_ids[start : start + len(expected)] == expected, rollout


def test_a_completion_without_its_end_is_found_too(engine: Engine, tokenizer: PreTrainedTokenizerFast) -> None:
    """What max_tokens cut keeps its ids; the end mark that the template adds follows them."""
    chat = Chat(tokenizer, engine.decode)
    messages = [{"role": "user", "content": "a"}]
    text, prompt = chat.prompt(messages, None)
    odd = [tokenizer.convert_tokens_to_ids(token) for token in "pl"]
    chat.remember(text, prompt, odd)
    messages += [{"role": "assistant", "content": "pl"}, {"role": "user", "content": "b"}]
    _, ids = chat.prompt(messages, None)
    assert ids[: len(prompt) + 3] == [*prompt, *odd, tokenizer.eos_token_id]


def test_the_memory_is_bounded(engine: Engine, tokenizer: PreTrainedTokenizerFast) -> None:
    """The oldest conversations are forgotten, and forgetting is only canonical tokenisation."""
    chat = Chat(tokenizer, engine.decode, memory_tokens=60)
    odd = [tokenizer.convert_tokens_to_ids(token) for token in "plus"] + [tokenizer.eos_token_id]
    kept = []
    for number in range(8):
        messages = [{"role": "user", "content": str(number)}]
        text, prompt = chat.prompt(messages, None)
        chat.remember(text, prompt, odd)
        kept.append((messages, prompt))
    for place, (messages, prompt) in enumerate(kept):
        _, ids = chat.prompt([*messages, {"role": "assistant", "content": "plus"}], None)
        assert (ids[: len(prompt) + 5] == prompt + odd) == (place >= 8 - 60 // (len(prompt) + 5))


def test_growing_text_is_the_whole_text(tokenizer: PreTrainedTokenizerFast) -> None:
    """Deltas never show half a character or what may become a stop string, and add up to the text before it."""
    decode = Decode(tokenizer, {2})
    ids = tokenizer.encode("Grüße 日本 🎉 twelve plus thirty", add_special_tokens=False)
    assert len(ids) > 20
    chance = random.Random(0)
    for stop, expected in (((), decode(ids)), (("plus", "e p"), "Grüße 日本 🎉 twelv"), (("never",), decode(ids))):
        for _ in range(20):
            text, at, shown = Text(decode, stop), 0, ""
            while at < len(ids):
                end = chance.randint(at + 1, len(ids))
                shown += text.feed(ids[at:end])
                assert "\ufffd" not in shown and expected.startswith(shown)
                at = end
            assert shown + text.finish() == expected
            assert text.stopped == (stop not in ((), ("never",)))
