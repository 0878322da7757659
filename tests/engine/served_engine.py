"""A tiny random Llama with a small tokenizer, and its endpoint served over real sockets."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from aiohttp import web
from openai import AsyncOpenAI, OpenAI
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lightning_embedded.engine.engine import Engine
from lightning_embedded.engine.sequence import Sequence
from lightning_embedded.serving.chat import Chat
from lightning_embedded.serving.server import make_app

KEY = "test-key"
SPECIALS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
]
TEMPLATE = (
    "{%- if tools %}{{ '<|im_start|>system\nTools: ' }}{% for t in tools %}{{ t.function.name }}("
    "{{ t.function.parameters.properties | join(', ') }}){% endfor %}{{ '<|im_end|>\n' }}{%- endif %}"
    "{%- for m in messages %}{%- if m.role == 'tool' %}"
    "{{ '<|im_start|>tool\n<tool_response>' + m.content + '</tool_response><|im_end|>\n' }}"
    "{%- else %}{{ '<|im_start|>' + m.role + '\n' + (m.content or '') }}"
    '{%- for c in m.tool_calls or [] %}{{ \'<tool_call>{"name": "\' + c.function.name + \'", "arguments": \' + '
    "(c.function.arguments if c.function.arguments is string else c.function.arguments | tojson) + '}</tool_call>' }}"
    "{%- endfor %}{{ '<|im_end|>\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{%- endif %}"
)


def make_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIALS,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    texts = [
        '{"name": "calculator", "arguments": {"expression": "12 + 30"}}',
        "What is twelve plus thirty? assistant user",
    ]
    tokenizer.train_from_iterator(texts * 4, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.chat_template = TEMPLATE
    return fast


def make_model(vocabulary: int, seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        attention_bias=True,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=0,
        initializer_range=0.1,
    )
    return LlamaForCausalLM(config).eval()


def reference(model: torch.nn.Module, sequence: Sequence, temperature: float = 1.0) -> torch.Tensor:
    """Log-probs of a sequence's sampled tokens by one plain forward pass."""
    with torch.no_grad():
        logits = model(torch.tensor([sequence.all_ids()])).logits[0] / temperature
    rows = torch.log_softmax(logits, -1)[len(sequence.prompt) - 1 : -1]
    return rows.gather(1, torch.tensor(sequence.token_ids)[:, None])[:, 0]


def assert_logprobs(model: torch.nn.Module, sequences: list[Sequence], temperature: float = 1.0) -> None:
    for sequence in sequences:
        assert sequence.token_ids
        torch.testing.assert_close(
            torch.tensor(sequence.logprobs), reference(model, sequence, temperature), atol=1e-4, rtol=0
        )


@dataclass
class Service:
    """A running endpoint."""

    url: str
    engine: Engine
    chat: Chat
    model: torch.nn.Module

    def client(self, **options: Any) -> OpenAI:
        return OpenAI(base_url=self.url, api_key=KEY, max_retries=0, timeout=30, **options)

    def async_client(self) -> AsyncOpenAI:
        return AsyncOpenAI(base_url=self.url, api_key=KEY, max_retries=0, timeout=30)


def serve(engine: Engine, chat: Chat, model: torch.nn.Module) -> tuple[Service, Callable[[], None]]:
    """Start the app on a free port in a separate thread; the service and how to stop it."""
    loop, ready, port = asyncio.new_event_loop(), threading.Event(), 0
    runner = web.AppRunner(make_app(engine, chat, "tiny", KEY), access_log=None, shutdown_timeout=1)

    async def start() -> None:
        nonlocal port
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        ready.set()

    def run() -> None:
        loop.run_until_complete(start())
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(60), "the server did not start"

    def stop() -> None:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()

    return Service(f"http://127.0.0.1:{port}/v1", engine, chat, model), stop
