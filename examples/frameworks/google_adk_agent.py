"""An agent of Google's ADK that learns to use a calculator."""

import os
import random
import re

from google.adk.agents import LlmAgent
from google.adk.models.lite_llm import LiteLlm
from google.adk.runners import InMemoryRunner
from google.genai import types

import lightning_sdk as lightning

os.environ.setdefault("OPENAI_API_KEY", "not needed while the agent is trained")


def calculator(expression: str) -> str:
    """Add the numbers of an expression."""
    return str(sum(map(int, re.findall(r"\d+", expression))))


solver = LlmAgent(
    name="solver",
    model=LiteLlm("openai/gpt-4o-mini", max_tokens=64),
    instruction="Use the calculator, then answer.",
    tools=[calculator],
)


@lightning.agent(trainable=True)
async def solve(task: dict) -> str:
    """The last text that the agent says, in a session of this rollout."""
    runner, said = InMemoryRunner(solver, app_name="sums"), ""
    session = await runner.session_service.create_session(app_name="sums", user_id="user")
    question = types.Content(role="user", parts=[types.Part(text=task["question"])])
    async for event in runner.run_async(user_id="user", session_id=session.id, new_message=question):
        for part in (event.content.parts if event.content else None) or ():
            said = part.text or said
    return said


@lightning.reward
def correct(task: dict, answer: str) -> float:
    """1 if the last number of the answer is the right one."""
    return float(re.findall(r"\d+", answer)[-1:] == [task["answer"]])


SUMS = [divmod(number, 100) for number in random.Random(1).sample(range(10_000), 700)]
TASKS = [{"question": f"What is {a} + {b}?", "answer": str(a + b)} for a, b in SUMS]

if __name__ == "__main__":
    lightning.init()
    lightning.train(solve, tasks=TASKS[:500], held_out=TASKS[500:], model="spark", steps=40)
