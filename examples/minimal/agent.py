"""One call that learns to add: plain Python and the OpenAI SDK. Run this file; a training takes about a minute."""

import random

from openai import OpenAI

import lightning_sdk as lightning

client = OpenAI(api_key="not needed while the agent is trained")


@lightning.agent(role="adder", trainable=True)
def add(task):
    question = {"role": "user", "content": task["question"]}
    reply = client.chat.completions.create(model="gpt-4o-mini", messages=[question], max_tokens=24)
    return reply.choices[0].message.content


@lightning.reward
def correct(task, answer):
    return float(answer == task["sum"])


if __name__ == "__main__":
    pairs = [divmod(number, 100) for number in random.Random(1).sample(range(10_000), 700)]
    tasks = [{"question": f"What is {a} + {b}?", "sum": str(a + b)} for a, b in pairs]
    lightning.init()
    lightning.train(add, tasks[:500], held_out=tasks[500:], model="spark", steps=40, name="minimal")
