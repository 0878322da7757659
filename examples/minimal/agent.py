"""One call that learns to use its calculator: plain Python and the OpenAI SDK. Run this file; it takes a minute."""

import random

from openai import OpenAI

import lightning_sdk as lightning

client = OpenAI(api_key="not needed while the agent is trained")
ARGUMENTS = {"type": "object", "properties": {"expression": {"type": "string"}}}
TOOL = {"type": "function", "function": {"name": "calculator", "parameters": ARGUMENTS}}


@lightning.agent(role="solver", trainable=True)
def solve(task):
    question = {"role": "user", "content": f"What is {task['sum']}?"}
    reply = client.chat.completions.create(model="gpt-4o-mini", messages=[question], tools=[TOOL], max_tokens=64)
    return "".join(call.function.arguments for call in reply.choices[0].message.tool_calls or [])


@lightning.reward
def correct(task, answer):
    return float(task["sum"] in answer)


if __name__ == "__main__":
    sums = [{"sum": f"{number // 100} + {number % 100}"} for number in random.Random(1).sample(range(10_000), 700)]
    lightning.init()
    lightning.train(solve, tasks=sums[:500], held_out=sums[500:], model="spark", steps=40, name="minimal")
