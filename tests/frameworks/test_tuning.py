"""The prompts of an unmodified agent of each framework are tuned, and nothing else in its requests changes on the wire.

The agents' model and the reflecting model are one scripted endpoint: the first says the words that its instruction
tells it to say, the second adds a word. So these tests are about the way of the texts, and not about gains.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import lightning_sdk as lightning
from tests.frameworks.engine_process import BACKEND_PYTHON
from tests.frameworks.exchange import Exchange
from tests.frameworks.scripted import Said

INSTRUCTION = "You answer questions. Say: hello"
WORDS = ("alpha", "beta")
TASKS = [{"question": f"What is {n} + 30?", "needs": WORDS[n % 2]} for n in range(10)]
REFLECTOR = "reflector"
_SAID = re.compile(r"Say: ([a-z]+(?: [a-z]+)*)")
SETTINGS = {
    "prompts.algorithm": "apo",
    "prompts.budget_rollouts": 30,
    "prompts.proposals": 2,
    "prompts.minibatch": 2,
    "prompts.beam": 2,
    "rollouts.concurrency": 4,
    "steps": 2,
}

Ask = Callable[[Any, str], str]
"""Builds an agent at the wire and asks it a question, as a user's program does."""


def load(name: str) -> ModuleType:
    """A module of the framework; skips the test where the framework is not installed."""
    pytest.importorskip(name.partition(".")[0])
    return importlib.import_module(name)


def agno(wire: Any, question: str) -> str:
    model = load("agno.models.openai").OpenAIChat(id="m", base_url=wire.url, api_key="mine", max_retries=0)
    agent = load("agno.agent").Agent(name="solver", model=model, instructions=INSTRUCTION, telemetry=False)
    return str(agent.run(question).content)


def autogen(wire: Any, question: str) -> str:
    load("autogen_agentchat")
    info = {"vision": False, "function_calling": True, "json_output": False, "family": "unknown"}
    client = load("autogen_ext.models.openai").OpenAIChatCompletionClient(
        model="m", base_url=wire.url, api_key="mine", max_retries=0, model_info={**info, "structured_output": False}
    )
    agent = load("autogen_agentchat.agents").AssistantAgent("solver", client, system_message=INSTRUCTION)
    return str(asyncio.run(agent.run(task=question)).messages[-1].content)


def crewai(wire: Any, question: str) -> str:
    crew = load("crewai")
    llm = crew.LLM(model="gpt-4o-mini", base_url=wire.url, api_key="mine")
    agent = crew.Agent(role="Solver", goal=INSTRUCTION, backstory="Short.", llm=llm, max_iter=3)
    task = crew.Task(description=question, expected_output="A number", agent=agent)
    return str(crew.Crew(agents=[agent], tasks=[task]).kickoff().raw)


def dspy(wire: Any, question: str) -> str:
    found = load("dspy")
    lm = found.LM("openai/m", api_base=wire.url, api_key="mine", num_retries=0, max_tokens=24, cache=False)
    with found.context(lm=lm):
        return str(found.Predict(found.Signature("question -> answer", INSTRUCTION))(question=question).answer)


def google_adk(wire: Any, question: str) -> str:
    pytest.importorskip("google.adk")  # `google` is there without it
    model = load("google.adk.models.lite_llm").LiteLlm("openai/m", api_base=wire.url, api_key="mine", num_retries=0)
    agent = load("google.adk.agents").LlmAgent(name="solver", model=model, instruction=INSTRUCTION)
    types = load("google.genai.types")

    async def run() -> str:
        runner, text = load("google.adk.runners").InMemoryRunner(agent, app_name="app"), ""
        session = await runner.session_service.create_session(app_name="app", user_id="u")
        message = types.Content(role="user", parts=[types.Part(text=question)])
        async for event in runner.run_async(user_id="u", session_id=session.id, new_message=message):
            for part in (event.content.parts if event.content else None) or ():
                text = part.text or text
        return text

    return asyncio.run(run())


def haystack(wire: Any, question: str) -> str:
    load("haystack")
    secret = load("haystack.utils").Secret.from_token("mine")
    generator = load("haystack.components.generators.chat").OpenAIChatGenerator(
        secret, "m", api_base_url=wire.url, max_retries=0, timeout=60
    )
    agent = load("haystack.components.agents").Agent(chat_generator=generator, system_prompt=INSTRUCTION)
    message = load("haystack.dataclasses").ChatMessage.from_user(question)
    return str(agent.run(messages=[message])["messages"][-1].text)


def langchain(wire: Any, question: str) -> str:
    model = load("langchain_openai").ChatOpenAI(model="m", base_url=wire.url, api_key="mine", max_retries=0)
    agent = load("langchain.agents").create_agent(model, tools=[], name="solver", system_prompt=INSTRUCTION)
    return str(agent.invoke({"messages": [("user", question)]})["messages"][-1].content)


def langgraph(wire: Any, question: str) -> str:
    graphs = load("langgraph.graph")
    model = load("langchain_openai").ChatOpenAI(model="m", base_url=wire.url, api_key="mine", max_retries=0)

    def solver(state: dict[str, Any]) -> dict[str, Any]:
        return {"messages": [model.invoke([("system", INSTRUCTION), *state["messages"]])]}

    graph = graphs.StateGraph(graphs.MessagesState)
    graph.add_node("solver", solver)
    graph.add_edge(graphs.START, "solver")
    graph.add_edge("solver", graphs.END)
    return str(graph.compile().invoke({"messages": [("user", question)]})["messages"][-1].content)


def llama_index(wire: Any, question: str) -> str:
    load("llama_index.core")
    llm = load("llama_index.llms.openai_like").OpenAILike(
        "m", api_base=wire.url, api_key="mine", max_retries=0, is_chat_model=True, is_function_calling_model=True
    )
    agent = load("llama_index.core.agent.workflow").FunctionAgent(
        name="solver", description="solver", llm=llm, tools=[], system_prompt=INSTRUCTION
    )

    async def run() -> str:
        return str(await agent.run(question))

    return asyncio.run(run())


def agent_framework(wire: Any, question: str) -> str:
    found = load("agent_framework")

    async def run() -> str:
        client = load("openai").AsyncOpenAI(base_url=wire.url, api_key="mine", max_retries=0)
        chat = load("agent_framework.openai").OpenAIChatCompletionClient(model="m", async_client=client)
        return str((await found.Agent(chat, name="solver", instructions=INSTRUCTION).run(question)).text)

    return asyncio.run(run())


def openai_agents(wire: Any, question: str) -> str:
    found = load("agents")

    async def run() -> str:
        client = load("openai").AsyncOpenAI(base_url=wire.url, api_key="mine", max_retries=0)
        model = found.OpenAIChatCompletionsModel("m", client)
        agent = found.Agent(name="solver", model=model, instructions=INSTRUCTION)
        return str((await found.Runner.run(agent, question)).final_output)

    return asyncio.run(run())


def openai_agents_responses(wire: Any, question: str) -> str:
    found = load("agents")

    async def run() -> str:
        client = load("openai").AsyncOpenAI(base_url=wire.url, api_key="mine", max_retries=0)
        agent = found.Agent(name="solver", model=found.OpenAIResponsesModel("m", client), instructions=INSTRUCTION)
        return str((await found.Runner.run(agent, question)).final_output)

    return asyncio.run(run())


def pydantic_ai(wire: Any, question: str) -> str:
    load("pydantic_ai")

    async def run() -> str:
        client = load("openai").AsyncOpenAI(base_url=wire.url, api_key="mine", max_retries=0)
        provider = load("pydantic_ai.providers.openai").OpenAIProvider(openai_client=client)
        model = load("pydantic_ai.models.openai").OpenAIChatModel("m", provider=provider)
        agent = load("pydantic_ai").Agent(model, name="solver", instructions=INSTRUCTION)
        return str((await agent.run(question)).output)

    return asyncio.run(run())


def semantic_kernel(wire: Any, question: str) -> str:
    load("semantic_kernel")

    async def run() -> str:
        client = load("openai").AsyncOpenAI(base_url=wire.url, api_key="mine", max_retries=0)
        service = load("semantic_kernel.connectors.ai.open_ai").OpenAIChatCompletion(
            ai_model_id="m", async_client=client
        )
        agent = load("semantic_kernel.agents").ChatCompletionAgent(
            service=service, name="solver", instructions=INSTRUCTION
        )
        return str(await agent.get_response(messages=question))

    return asyncio.run(run())


def smolagents(wire: Any, question: str) -> str:
    found = load("smolagents")
    model = found.OpenAIModel("m", api_base=wire.url, api_key="mine", client_kwargs={"max_retries": 0})
    agent = found.ToolCallingAgent(
        tools=[], model=model, name="solver", description="d", instructions=INSTRUCTION, verbosity_level=0
    )
    return str(agent.run(question))


def strands(wire: Any, question: str) -> str:
    arguments = {"base_url": wire.url, "api_key": "mine", "max_retries": 0}
    model = load("strands.models.openai").OpenAIModel(client_args=arguments, model_id="m")
    agent = load("strands").Agent(model=model, name="solver", system_prompt=INSTRUCTION, callback_handler=None)
    return str(agent(question))


def anthropic(wire: Any, question: str) -> str:
    with load("anthropic").Anthropic(base_url=wire.root, api_key="mine", max_retries=0) as client:
        asked: Any = [{"role": "user", "content": question}]
        said = client.messages.create(model="m", max_tokens=24, system=INSTRUCTION, messages=asked)
        return str(said.content[0].text)


def litellm(wire: Any, question: str) -> str:
    asked = [{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": question}]
    said = load("litellm").completion(
        model="openai/m", messages=asked, api_base=wire.url, api_key="mine", num_retries=0, max_tokens=24
    )
    return str(said.choices[0].message.content)


def openai_sdk(wire: Any, question: str) -> str:
    asked: Any = [{"role": "developer", "content": INSTRUCTION}, {"role": "user", "content": question}]
    with load("openai").OpenAI(base_url=wire.url, api_key="mine", max_retries=0) as client:
        return str(client.chat.completions.create(model="m", messages=asked).choices[0].message.content)


def openai_responses(wire: Any, question: str) -> str:
    with load("openai").OpenAI(base_url=wire.url, api_key="mine", max_retries=0) as client:
        return str(client.responses.create(model="m", instructions=INSTRUCTION, input=question).output_text)


def google_genai(wire: Any, question: str) -> str:
    pytest.importorskip("google.genai")  # `google` is there without it
    types = load("google.genai.types")
    with load("google.genai").Client(api_key="mine", http_options=types.HttpOptions(base_url=wire.root)) as client:
        config = types.GenerateContentConfig(system_instruction=INSTRUCTION)
        return str(client.models.generate_content(model="m", contents=question, config=config).text)


def huggingface(wire: Any, question: str) -> str:
    asked = [{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": question}]
    client = load("huggingface_hub").InferenceClient(base_url=wire.url, api_key="mine")
    return str(client.chat_completion(asked, max_tokens=24).choices[0].message.content)


AGENTS: list[Ask] = [
    agno, autogen, crewai, dspy, google_adk, haystack, langchain, langgraph, llama_index, agent_framework,
    openai_agents, openai_agents_responses, pydantic_ai, semantic_kernel, smolagents, strands, anthropic, litellm,
    openai_sdk, openai_responses, google_genai, huggingface,
]  # fmt: skip


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are offline by more than the word of huggingface_hub, which refuses loopback too."""
    with contextlib.suppress(ImportError):
        monkeypatch.setattr(importlib.import_module("huggingface_hub.constants"), "HF_HUB_OFFLINE", False)


def said_words(text: str) -> str:
    """What a text tells the model to say."""
    return " ".join(dict.fromkeys(_SAID.findall(text)))


def obey(ask: Ask) -> Callable[[Exchange], Said]:
    """The endpoint: says what an instruction tells it to, and as the reflecting model adds a word to one."""

    def answer(exchange: Exchange) -> Said:
        body = exchange.json
        if body.get("model") == REFLECTOR:
            return Said(propose(body["messages"][0]["content"]))
        words = said_words(json.dumps(body))
        if ask is smolagents:
            return Said(tools=(("final_answer", {"answer": words}),))
        return Said(f"[[ ## answer ## ]]\n{words}\n\n[[ ## completed ## ]]" if ask is dspy else words)

    return answer


def propose(asked: str) -> str:
    """A critique, or the text that was asked about with a word more."""
    if "<instruction>" not in asked or "Do not write the new instruction yet." in asked:
        return "A word is missing."
    text = re.findall(r"<instruction>\n(.*?)\n</instruction>", asked, re.DOTALL)[0]
    missing = [word for word in WORDS if word not in said_words(text)]
    more = f"Say: {said_words(text)} {missing[0] if missing else 'gamma'}"
    return f"<instruction>\n{_SAID.sub(more, text, count=1)}\n</instruction>"


def is_right(task: dict[str, Any], answer: str) -> float:
    return float(task["needs"] in answer.split())


@pytest.mark.usefixtures("online")
@pytest.mark.parametrize("ask", AGENTS, ids=lambda ask: ask.__name__)
def test_the_prompt_of_an_unmodified_agent_is_tuned(ask: Ask, wire: Any, tmp_path: Path) -> None:
    """Each candidate's words reach the endpoint, whatever the framework puts around them; with the agent's own words
    in their place, each request is the one that the agent sends without a candidate."""
    wire.answer = obey(ask)
    ask(wire, "Is this framework here?")  # skips where it is not
    wire.clear()
    lightning.init()

    def solve(task: dict[str, Any]) -> str:
        return ask(wire, task["question"])

    report = lightning.train(
        solve,
        TASKS[:8],
        is_right,
        held_out=TASKS[8:],
        backend="prompts",
        backend_python=BACKEND_PYTHON,
        name="run",
        runs=tmp_path,
        quiet=True,
        **{"prompts.reflect_with": f"{wire.url}#{REFLECTOR}", **SETTINGS},
    )
    assert report.before.mean == 0 and report.after.mean > 0
    tried = [json.loads(line) for line in (tmp_path / "run/candidates.jsonl").read_text().splitlines()]
    words = {said_words(text) for each in tried if each["rollouts"] for text in each["texts"].values()} - {""}
    # As JSON: clients write what is put into their bytes in other layouts than they do themselves.
    bodies = [json.dumps(each.json) for each in wire.provider if each.json.get("model") != REFLECTOR]
    own = {body for body in bodies if said_words(body) == "hello"}
    assert {said_words(body) for body in bodies} == words and len(words) > 2
    assert all(body.replace(f"Say: {said_words(body)}", "Say: hello") in own for body in bodies)
