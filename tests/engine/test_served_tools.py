"""Tools at the endpoint: refused where the model would not see them, and read without touching what was sampled."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from lightning_embedded.engine.engine import Engine
from lightning_embedded.engine.sequence import Params, Sequence
from lightning_embedded.serving.chat import Chat
from lightning_embedded.serving.protocol import read_chat
from lightning_embedded.serving.reply import Reply, ReplyChoice
from lightning_embedded.text.chat_template import Template
from lightning_embedded.text.growing_text import Decode, Text
from lightning_embedded.text.tool_format import ToolFormat
from tests.engine import tool_templates
from tests.engine.served_engine import make_tokenizer, serve

ASK: list[Any] = [{"role": "user", "content": "What is twelve plus thirty?"}]
TOOLS: list[Any] = [{"type": "function", "function": {"name": "calculator", "parameters": {"type": "object"}}}]


@pytest.mark.parametrize("source", ["SILENT", "UNKNOWN"])
def test_tools_that_the_model_would_not_see_are_refused(engine: Engine, model: LlamaForCausalLM, source: str) -> None:
    """The engine says so by name instead of dropping them; the same request without their use is answered."""
    own = make_tokenizer()
    own.chat_template = getattr(tool_templates, source)
    service, stop = serve(engine, Chat(own, engine.decode), model)
    try:
        with service.client() as client:
            with pytest.raises(openai.BadRequestError, match="the chat template of tiny") as error:
                client.chat.completions.create(model="tiny", messages=ASK, tools=TOOLS, max_tokens=4)
            assert error.value.param == "tools" and error.value.code == "tools_unsupported"
            with pytest.raises(openai.BadRequestError, match="the chat template of tiny"):
                list(client.chat.completions.create(model="tiny", messages=ASK, tools=TOOLS, max_tokens=4, stream=True))
            for rest in ({}, {"tools": TOOLS, "tool_choice": "none"}):
                assert client.chat.completions.create(model="tiny", messages=ASK, max_tokens=4, **rest).choices
    finally:
        stop()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", tool_templates.TEMPLATES)
def test_reading_calls_leaves_the_ids_alone(tokenizer: PreTrainedTokenizerFast, name: str, stream: bool) -> None:
    """Every token that was sampled is in the reply, whatever of its text became a call."""
    chat = Chat(tokenizer, Decode(tokenizer, {tokenizer.eos_token_id}))
    chat.template = Template(tool_templates.TEMPLATES[name], {"bos_token": "", "eos_token": "<|im_end|>"})
    chat.tools = ToolFormat(chat.template, ("<|im_end|>", "<|eot_id|>"))
    said = chat.tools.turn.rpartition("[/INST]")[2].rpartition("assistant\n")[2].rpartition("<|end_header_id|>\n\n")[2]
    ids = [*chat.encode(said.partition("<|im_end|>")[0].partition("<|eot_id|>")[0]), tokenizer.eos_token_id]
    tool = {"type": "function", "function": {"name": "probe_of_tools", "parameters": {}}}
    body = {"model": "tiny", "messages": ASK, "tools": [tool], "stream": stream, "return_token_ids": True}
    sequence = Sequence([1], Params(max_tokens=999), lambda _: None)
    reader = chat.tools.reader([tool], "tiny")
    reply = Reply(request=read_chat(body), decode=chat.decode, prompts=[[1]])
    reply.choices.append(ReplyChoice(index=0, sequence=sequence, text=Text(chat.decode), tools=reader))
    chunks = []
    for token in ids:
        sequence.append(token, -1.0, 0)
        sequence.finish = "stop" if token == ids[-1] else ""
        chunks += [reply.news(reply.choices[0])] if stream else []
    made = [chunk["choices"][0] for chunk in chunks if chunk] or reply.whole()["choices"]
    assert [each for choice in made for each in choice["token_ids"]] == ids
    (call,) = [each for choice in made for each in choice["delta" if stream else "message"].get("tool_calls", [])]
    assert call["function"]["name"] == "probe_of_tools" and made[-1]["finish_reason"] == "tool_calls"
    assert json.loads(call["function"]["arguments"])["place"] == "a b"
