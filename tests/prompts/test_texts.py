"""Which texts are tuned: the instructions of the roles that are wanted, or what is marked in them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lightning_hub.rollout import EarnedReward, Rollout
from lightning_prompts.candidate import Component
from lightning_prompts.hub_arena import read_result
from lightning_prompts.questions import improvement
from lightning_prompts.texts import find_components
from lightning_sdk.errors import NothingToTrain
from lightning_sdk.settings import Settings
from lightning_sdk.trace.call import Call, CallMeta, Choice, Status


def call(role: str, *, said: dict[str, Any] | None = None, error: str = "", **request: Any) -> Call:
    meta = CallMeta("1", "", role, False, 1, 2, "error" if error else "ok", error, 200, False, "/v1/x", "openai")
    message = json.dumps(said or {"content": "fine"}).encode()
    choice = Choice(index=0, message=message, finish_reason="stop", token_ids=b"", logprobs=b"")
    return Call(
        meta=meta,
        request=json.dumps(request).encode(),
        response_id="r",
        model="m",
        prompt_ids=b"",
        choices=() if error else (choice,),
        input_tokens=5,
        output_tokens=2,
    )


def chat(role: str, system: str, text: str = "hello", **more: Any) -> Call:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": text}]
    return call(role, messages=messages, **more)


def rollout(number: int, *calls: Call, rewards: tuple[EarnedReward, ...] = (), status: Status = Status.OK) -> Rollout:
    return Rollout(
        id=str(number),
        task_id=number,
        group="g",
        mode="train",
        attempt=1,
        status=status,
        error="",
        seconds=1.0,
        rewards=rewards,
        calls=calls,
        answer="forty-two",
    )


def test_each_role_has_its_instruction() -> None:
    """Only those that are wanted; all of them if none is named."""
    found = [rollout(n, chat("writer", "You write well."), chat("judge", "You judge fairly.")) for n in range(3)]
    assert [(each.name, each.text) for each in find_components(found, ["judge"], {})] == [
        ("judge", "You judge fairly.")
    ]
    assert [each.name for each in find_components(found, (), {})] == ["judge", "writer"]
    assert find_components([rollout(1, chat("a", "Go."))], (), {})[0].text == "Go."


def test_what_a_task_fills_in_is_a_placeholder() -> None:
    topics = ("apples and pears", "quantum physics", "the history of Rome")
    found = [rollout(n, chat("writer", f"You write about {topic}. Be brief.")) for n, topic in enumerate(topics)]
    (component,) = find_components(found, ["writer"], {})
    assert component.text == "You write about {hole_1}. Be brief."


def test_two_roles_with_one_text_are_one_component() -> None:
    """A text is found by what it says, so both have to get the same one."""
    found = [rollout(1, chat("a", "You are helpful."), chat("b", "You are helpful."))]
    (component,) = find_components(found, ["a", "b"], {})
    assert component.roles == ("a", "b") and component.name == "a"


def test_a_role_with_several_texts_numbers_them() -> None:
    found = [rollout(1, chat("a", "First plan the whole trip."), chat("a", "Now check all of the prices again."))]
    assert [each.name for each in find_components(found, ["a"], {})] == ["a.1", "a.2"]


def test_what_is_marked_is_tuned_in_the_place_of_the_frame_around_it() -> None:
    """In an instruction, and in what users say."""
    marks = {"goal": "Find the cheapest room.", "question": "A room for {people}, please.", "other": "Not used at all."}
    calls = chat("planner", f"You are a planner. Your goal: {marks['goal']} Use the tools.", "A room for 7, please.")
    found = find_components([rollout(1, calls)], ["planner"], marks)
    assert {(each.name, each.text, each.mark) for each in found} == {
        ("goal", marks["goal"], "goal"),
        ("question", marks["question"], "question"),
    }


@pytest.mark.parametrize(
    ("calls", "told"),
    [
        ([chat("b", "You are helpful.")], "role 'a' made no call to a model in 1 rollout,.*did: 'b'"),
        ([call("a", messages=[{"role": "user", "content": "hi"}])], r"role 'a' have no instruction.*lightning\.prompt"),
    ],
)
def test_a_role_without_a_text_is_an_error(calls: list[Call], told: str) -> None:
    with pytest.raises(NothingToTrain, match=told):
        find_components([rollout(1, *calls)], ["a"], {})


def test_reflection_reads_calls_tools_errors_and_rewards() -> None:
    """What was said to the model but its instruction, in all protocols; each reward with its name."""
    tools = [
        {"role": "system", "content": "SECRET"},
        {"role": "user", "content": [{"type": "text", "text": "2 + 2?"}]},
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "add", "arguments": "[2, 2]"}}]},
        {"role": "tool", "content": "4"},
    ]
    found = read_result(
        rollout(
            1,
            call("a", messages=tools, said={"tool_calls": [{"function": {"name": "end", "arguments": "{}"}}]}),
            call("b", instructions="SECRET", input="what now?", error="HTTP 500"),
            rewards=(EarnedReward("", "right", 0.5, 1, "unit missing"), EarnedReward("a", "brief", 1.0, 2)),
        ),
        Settings(),
    )
    assert found.turns[0].asked == "user: 2 + 2?\nassistant: calls add([2, 2])\ntool: 4"
    assert found.turns[0].said == "calls end({})"
    assert (found.turns[1].asked, found.turns[1].error) == ("what now?", "HTTP 500")
    assert found.score == 0.5 and found.by_role == {"a": 1.0} and found.answer == "forty-two"
    assert found.reasons == ("right is 0.5: unit missing", "brief of a is 1")
    assert (found.calls, found.tokens) == (2, 14)
    only = read_result(rollout(1, rewards=(EarnedReward("", "right", 0.5, 1, "unit missing"),)), Settings())
    assert only.reasons == ("unit missing",)


def test_a_rollout_that_failed_has_no_score() -> None:
    """Whatever it had earned before."""
    found = read_result(rollout(1, rewards=(EarnedReward("", "r", 1.0, 1),), status=Status.AGENT_ERROR), Settings())
    assert found.score is None and found.status == "agent_error"


def call_with_tools(role: str, *texts: str) -> Call:
    """A call with tools that have these descriptions."""
    tools = [
        {"type": "function", "function": {"name": f"tool{n}", "description": each}} for n, each in enumerate(texts)
    ]
    return chat(role, "Use your tools.", tools=tools)


def test_descriptions_of_tools_are_tuned_if_they_are_asked_for() -> None:
    """Each under the names of its role and its tool; the same one of two roles is one text."""
    found = [
        rollout(1, call_with_tools("a", "Adds two numbers.", "Looks it up."), call_with_tools("b", "Adds two numbers."))
    ]
    assert [each.name for each in find_components(found, ["a"], {})] == ["a"]
    components = find_components(found, ["a", "b"], {}, tools=True)
    assert [(each.name, each.roles, each.text, each.tool) for each in components] == [
        ("a", ("a", "b"), "Use your tools.", ""),
        ("a.tool.tool0", ("a", "b"), "Adds two numbers.", "tool0"),
        ("a.tool.tool1", ("a",), "Looks it up.", "tool1"),
    ]


def test_a_tool_with_two_descriptions_has_two_names() -> None:
    found = [
        rollout(1, call_with_tools("a", "Adds two numbers."), call_with_tools("a", "Never used at all by anyone."))
    ]
    assert [each.name for each in find_components(found, ["a"], {}, tools=True)] == [
        "a",
        "a.tool.tool0",
        "a.tool.tool0.2",
    ]


def test_the_reflecting_model_is_told_that_a_text_describes_a_tool() -> None:
    component = Component("a.tool.add", ("a",), "Adds.", tool="add")
    told = improvement(component, "Adds.", 100, [])
    assert "gives the role 'a' a tool called 'add', with a description" in told and "<instruction>\nAdds.\n" in told
