"""An agent that learns to use a calculator, and calls its model with Hugging Face's InferenceClient."""

import json
import os
import random
import re

from huggingface_hub import InferenceClient

import lightning_sdk as lightning

TOKEN = os.environ.get("HF_TOKEN", "hf_not_needed_while_the_agent_is_trained")
client = InferenceClient("Qwen/Qwen2.5-7B-Instruct", api_key=TOKEN)
ARGUMENTS = {"type": "object", "properties": {"expression": {"type": "string"}}, "required": ["expression"]}
TOOL = {"type": "function", "function": {"name": "calculator", "description": "Add.", "parameters": ARGUMENTS}}


def calculator(expression: str) -> str:
    """Add the numbers of an expression."""
    return str(sum(map(int, re.findall(r"\d+", expression))))


@lightning.agent(role="solver", trainable=True)
def solve(task: dict) -> str:
    messages = [{"role": "user", "content": task["question"]}]
    for _ in range(3):
        reply = client.chat_completion(messages, tools=[TOOL], max_tokens=64).choices[0].message
        if not reply.tool_calls:
            return reply.content or ""
        messages.append(reply)
        for call in reply.tool_calls:
            result = calculator(str(json.loads(call.function.arguments).get("expression")))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    return ""


@lightning.reward
def correct(task: dict, answer: str) -> float:
    """1 if the last number of the answer is the right one."""
    return float(re.findall(r"\d+", answer)[-1:] == [task["answer"]])


SUMS = [divmod(number, 100) for number in random.Random(1).sample(range(10_000), 700)]
TASKS = [{"question": f"What is {a} + {b}?", "answer": str(a + b)} for a, b in SUMS]

if __name__ == "__main__":
    lightning.init()
    lightning.train(solve, tasks=TASKS[:500], held_out=TASKS[500:], model="spark", steps=40)
