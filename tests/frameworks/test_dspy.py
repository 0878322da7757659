"""DSPy: predictors by their path in the program, over its own HTTP client and over LiteLLM; its cache; its threads."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.frameworks.same import assert_all_trained, assert_same_bytes
from tests.frameworks.scripted import Said

pytest.importorskip("dspy")
import dspy

QUESTION = "What is 12 + 30?"
PATHS = ["generate.predict", "check"]
ANSWER = Said("[[ ## reasoning ## ]]\nr\n\n[[ ## answer ## ]]\n42\n\n[[ ## completed ## ]]")


class Check(dspy.Signature):
    """Check the answer."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField()


class Program(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.generate = dspy.ChainOfThought("question -> answer")
        self.check = dspy.Predict(Check)

    def forward(self, question: str) -> Any:
        self.generate(question=question)
        return self.check(question=question)

    async def aforward(self, question: str) -> Any:
        await self.generate.acall(question=question)
        return await self.check.acall(question=question)


@pytest.fixture(autouse=True)
def cache() -> Iterator[None]:
    """DSPy's cache in memory and empty, and the setting of its one global cache as it was."""
    before = dspy.cache
    dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=True)
    yield
    dspy.cache = before


def lm(wire: Any, engine: str = "auto", **options: Any) -> Any:
    options = {"num_retries": 0, "max_tokens": 24, **options}
    return dspy.context(lm=dspy.LM("openai/m", api_base=wire.url, api_key="mine", engine=engine, **options))


@pytest.mark.parametrize(("engine", "seam"), [("auto", "lm15"), ("litellm", "openai")])
def test_predictors_of_a_program(wire, capture, prove, touched_names, engine: str, seam: str) -> None:
    """Each predictor speaks under its path, with the ids that the engine sampled; nothing stays patched."""
    wire.answer = lambda _: ANSWER
    program = Program()
    with lm(wire, engine):
        run = capture(lambda: program(question=QUESTION))
    assert run.answer.answer == "42"
    assert_all_trained(run, wire, PATHS)
    assert {call.framework for call in run.calls} == {seam}
    prove("DSPy", "dspy", run)
    touched_names.assert_restored(
        "Predict.forward",
        "Predict.aforward",
        "Cache.get",
        "ParallelExecutor.execute",
        "StdlibTransport.stream",
        "StdlibAsyncTransport._do_stream",
    )


def test_what_the_engine_really_samples(wire, capture, prove) -> None:
    """Not dictated: the small model's words are not in DSPy's format, and are captured all the same."""
    with lm(wire):
        run = capture(lambda: Program()(question=QUESTION), raises=Exception)
    assert_all_trained(run, wire)
    assert run.error is not None and not any(each.scripted for each in run.exchanges)
    assert run.calls[0].completion_ids and run.exchanges[0].bearer == wire.endpoint.key


def test_a_trained_call_is_never_answered_by_the_cache(wire, capture) -> None:
    """Rollouts of one task ask the engine each time; the user's own runs are cached as ever, before and after."""
    wire.answer = lambda _: ANSWER
    with lm(wire):
        Program()(question=QUESTION)
        assert len(wire.clear()) == 2
        for _ in range(2):
            assert_all_trained(capture(lambda: Program()(question=QUESTION)), wire, PATHS)
        wire.clear()
        recorded = capture(lambda: Program()(question=QUESTION), train=False)
        Program()(question=QUESTION)
    assert recorded.calls == [] and wire.clear() == []


def test_tasks_and_streams(wire, capture, prove) -> None:
    """Programs interleaved on one loop, and a streamed field, keep the path of each predictor."""
    wire.answer = lambda _: ANSWER
    program = Program()

    async def tasks() -> None:
        await asyncio.gather(program.acall(question="a"), program.acall(question="b"))

    async def stream() -> str:
        listener = dspy.streaming.StreamListener(signature_field_name="answer", predict=program.check)
        parts = [part async for part in dspy.streamify(program, stream_listeners=[listener])(question=QUESTION)]
        return parts[-1].answer

    with lm(wire):
        run = capture(tasks)
        assert_all_trained(run, wire)
        assert sorted(run.roles) == sorted(PATHS * 2)
        run = capture(stream)
    assert run.answer == "42"
    assert_all_trained(run, wire, PATHS)
    assert [call.streamed for call in run.calls] == [False, True]
    prove("DSPy", "dspy", run, async_=True)


@pytest.mark.parametrize("carry_context", [True, False])
def test_parallel(wire, capture, prove, carry_context: bool) -> None:
    """Threads of dspy.Parallel belong to the rollout, also where no other thread inherits anything."""
    wire.answer = lambda _: ANSWER
    program = Program()
    capture.init(carry_context=carry_context)
    with lm(wire):
        parallel = dspy.Parallel(num_threads=2, disable_progress_bar=True)
        run = capture(lambda: parallel([(program, {"question": each}) for each in "xyz"]))
    assert_all_trained(run, wire)
    assert sorted(run.roles) == sorted(PATHS * 3)
    assert capture.outside() == []
    prove("DSPy", "dspy", run, threads=True)


def test_predictors_outside_of_a_program(wire, capture) -> None:
    """A signature's class gives its name; "question -> answer" has none and leaves the role to the caller."""
    wire.answer = lambda _: ANSWER

    def main() -> None:
        dspy.Predict(Check)(question=QUESTION)
        dspy.Predict("question -> answer")(question=QUESTION)

    with lm(wire):
        assert_all_trained(capture(main), wire, ["Check", "outer"])


def test_tools(wire, capture, prove) -> None:
    """The predictors of dspy.ReAct: those that think and call tools, and the one that answers."""
    replies = iter(
        [
            Said(
                "[[ ## next_thought ## ]]\nadd\n\n[[ ## next_tool_name ## ]]\ncalculator\n\n"
                "[[ ## next_tool_args ## ]]\n"
                '{"expression": "12 + 30"}\n\n[[ ## completed ## ]]'
            ),
            Said(
                "[[ ## next_thought ## ]]\nok\n\n[[ ## next_tool_name ## ]]\nfinish\n\n"
                "[[ ## next_tool_args ## ]]\n{}\n\n[[ ## completed ## ]]"
            ),
            ANSWER,
        ]
    )
    wire.answer = lambda _: next(replies)

    def calculator(expression: str) -> str:
        """Evaluate an arithmetic expression."""
        return "42"

    with lm(wire):
        run = capture(lambda: dspy.ReAct("question -> answer", tools=[calculator])(question=QUESTION))
    assert run.answer.answer == "42"
    assert_all_trained(run, wire, ["react", "react", "extract.predict"])
    prove("DSPy", "dspy", run)


def test_errors_and_retries(wire, capture) -> None:
    """An attempt that failed is a separate call; a refused one raises DSPy's error as it does without us."""
    wire.answer = lambda _: ANSWER
    wire.fail(500)
    with lm(wire, num_retries=1):
        run = capture(lambda: dspy.Predict(Check)(question=QUESTION))
    assert [(call.status, call.http_status) for call in run.calls] == [("error", 500), ("ok", 200)]
    wire.fail(400)
    with lm(wire):
        run = capture(lambda: dspy.Predict(Check)(question=QUESTION), raises=dspy.LMError)
    assert isinstance(run.error, dspy.LMError)
    assert {(call.status, call.http_status, call.role) for call in run.calls} == {("error", 400, "Check")}


def test_the_responses_api(wire, capture) -> None:
    """A trained predictor's Responses call goes to the engine as chat completions."""
    wire.answer = lambda _: ANSWER
    with lm(wire, model_type="responses"):
        run = capture(lambda: dspy.Predict(Check)(question=QUESTION))
    assert run.answer.answer == "42"
    assert_all_trained(run, wire, ["Check"])


@pytest.mark.parametrize("engine", ["auto", "litellm"])
def test_training_off_sends_the_same_bytes(wire, capture, engine: str) -> None:
    """Recorded only, requests are byte for byte what they are without us, and so is what DSPy makes of the replies."""
    wire.answer = lambda _: ANSWER

    def main() -> str:
        with lm(wire, engine, cache=False):
            return json.dumps(Program()(question=QUESTION).toDict())

    expected = main()
    before = wire.clear()
    run = capture(main, train=False)
    assert run.answer == expected
    assert_same_bytes(before, wire.clear())
    assert run.roles == PATHS and not any(call.trainable for call in run.calls)
