"""Rows that a chat template cuts, rendered and cut into ids by the engine's own chat."""

from __future__ import annotations

import pytest

from lightning_embedded.serving.chat import Chat
from lightning_embedded.text.growing_text import Decode
from lightning_hub.trajectories.breaks import Reason, openings
from lightning_hub.trajectories.trajectory import merge
from lightning_hub.trajectories.transition import transitions
from tests.engine.served_engine import make_tokenizer
from tests.hub.spoken import SYSTEM, assistant, call, user

QWEN3 = """{%- for message in messages %}{%- set content = message.content %}
{%- if message.role == "assistant" %}
{%- if '</think>' in content %}{%- set content = content.split('</think>')[-1].lstrip('\\n') %}{%- endif %}
{%- endif %}
{{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}"""
"""What Qwen3's template does with earlier turns, without its tools."""


@pytest.mark.parametrize("thinks", [False, True])
def test_what_the_template_of_qwen3_does(thinks: bool) -> None:
    """Rendered and cut into ids by the engine's own chat: the template is the cause, thinking switched off or not."""
    tokenizer = make_tokenizer()
    tokenizer.chat_template = QWEN3
    chat = Chat(tokenizer, Decode(tokenizer, {tokenizer.eos_token_id}))
    options = {} if thinks else {"enable_thinking": False}
    turns, messages = [], [SYSTEM, user("2 + 3?")]
    for number, text in enumerate(("5", "Yes."), 1):
        said = assistant(f"<think>\nhm\n</think>\n\n{text}" if thinks else text)
        rendered, prompt = chat.prompt(messages, None, options)
        sampled = [*chat.encode(said["content"]), tokenizer.eos_token_id]
        chat.remember(rendered, prompt, sampled)
        turns.append(call(number, [*messages], said, ids=prompt, sampled=sampled))
        messages += [said, user("Sure?")]
    rows = merge([each for made in turns for each in transitions(made)], "r")
    assert [each.reason for each in openings(rows, turns)] == [Reason.THINKING]
