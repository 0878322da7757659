"""The texts of a role are discovered from its requests of several tasks, whatever of them varies."""

from typing import Any

from lightning_sdk.prompts.discovery import RoleRequest, RoleText, find_role_texts

WRITE = "You write SQL. Use only these tables.\nTables: {tables}\nAnswer with one query in a fenced block."
CHECK = "You check a query for mistakes such as NOT IN with NULL, and say THE QUERY IS CORRECT if there is none."
TABLES = ("users, orders", "cars", "planets, moons, stars")


def request(task: str, *system: str, **more: Any) -> RoleRequest:
    messages = [*({"role": "system", "content": text} for text in system), {"role": "user", "content": f"Do {task}"}]
    return RoleRequest(task=task, body={"model": "m", "messages": messages, **more})


def only(texts: list[RoleText]) -> RoleText:
    assert len(texts) == 1, texts
    return texts[0]


def test_a_text_that_never_varies_is_whole() -> None:
    """One static part."""
    text = only(find_role_texts([request(str(number), CHECK) for number in range(3)]))
    assert (text.kind, text.text, text.template.holes) == ("system", CHECK, ())
    assert (text.requests, text.tasks, text.marked) == (3, {"0", "1", "2"}, {})


def test_what_varies_by_task_is_a_hole() -> None:
    """A template that the agent fills in, seen twice in each task."""
    requests = [request(tables, WRITE.format(tables=tables)) for tables in TABLES for _ in range(2)]
    text = only(find_role_texts(requests))
    assert text.text == WRITE.replace("{tables}", "{hole_1}")
    assert text.template.match(requests[0].body["messages"][0]["content"]) == {"{hole_1}": "users, orders"}
    assert (text.requests, len(text.tasks)) == (6, 3)


def test_texts_of_different_templates_are_apart() -> None:
    """A role that writes and checks has two texts, and none of what they have in common by chance."""
    requests = [
        each for tables in TABLES for each in (request(tables, WRITE.format(tables=tables)), request(tables, CHECK))
    ]
    write, check = find_role_texts(requests)
    assert write.text == WRITE.replace("{tables}", "{hole_1}") and check.text == CHECK


def test_a_system_and_a_developer_text_are_apart() -> None:
    """So are two system texts of one request, in whichever place they stand."""
    body = {"instructions": CHECK, "input": [{"role": "developer", "content": "Answer in English, and briefly."}]}
    requests = [RoleRequest(task="1", body=body), request("2", "Answer in English, and briefly.", CHECK)]
    assert [(each.kind, each.text, each.requests) for each in find_role_texts(requests)] == [
        ("system", CHECK, 2),
        ("developer", "Answer in English, and briefly.", 1),
        ("system", "Answer in English, and briefly.", 1),
    ]


def test_descriptions_of_tools_are_listed_by_tool() -> None:
    """Two tools with similar descriptions do not make a template."""
    tools = [
        {"type": "function", "function": {"name": name, "description": f"Looks up one {name} by its number."}}
        for name in ("user", "order")
    ]
    texts = find_role_texts([request("1", tools=tools), request("2", tools=tools)])
    assert [(each.kind, each.tool, each.requests) for each in texts] == [("tool", "user", 2), ("tool", "order", 2)]


def test_marked_texts_are_found_by_what_they_say() -> None:
    """As the whole text, as a part of a framework's frame, filled in, and in what a user says."""
    goal, asked = "Find the cheapest room that fits.", "Room for {people}, please, at {time}."
    marks = {"planner.goal": goal, "planner.checker": CHECK, "planner.question": asked, "planner.unused": "Never sent."}
    requests = [
        RoleRequest(
            task=task,
            body={
                "messages": [
                    {"role": "system", "content": f"You are Ann. Your personal goal is: {goal}\nDay: {task}"},
                    {"role": "system", "content": CHECK},
                    {"role": "user", "content": asked.format(people=4, time=task)},
                ]
            },
        )
        for task in ("Monday", "Tuesday")
    ]
    frame, check, user = find_role_texts(requests, marks)
    assert frame.marked == {"planner.goal": "part"} and frame.template.holes == ("{hole_1}",)
    assert check.marked == {"planner.checker": "whole"}
    assert (user.kind, user.text, user.marked, user.requests) == ("user", asked, {"planner.question": "whole"}, 2)


def test_a_request_without_instructions_has_no_text() -> None:
    """There is nothing to list for a role that only passes on what users say."""
    assert find_role_texts([request("1"), request("2")]) == []
