"""Requests of every protocol, with instructions of any text: what hypothesis draws, and where the texts are to be."""

from typing import Any

from hypothesis import strategies as st

#: Texts with what is hard in them: braces, quotes, line breaks, other scripts, nothing.
TEXTS = st.text(st.characters(codec="utf-8"), max_size=60) | st.sampled_from(
    ["", "You write.", "Say {topic} in {{ language }}.", '{"a": 1}', "Zeile\nzwei\t\u00e4\u4f60"]
)


def contents(texts: st.SearchStrategy[str], part: str = "text") -> st.SearchStrategy[Any]:
    """A content: a string, or a list of parts, among them such as hold no text."""
    of_text = st.fixed_dictionaries(
        {"type": st.just(part), "text": texts}, optional={"cache_control": st.just({"type": "ephemeral"})}
    )
    image = st.just({"type": "image_url", "image_url": {"url": "data:,"}})
    return texts | st.lists(of_text | image, max_size=3)


def _tools(texts: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    flat = st.fixed_dictionaries(
        {"type": st.just("function"), "name": st.just("look")}, optional={"description": texts}
    )
    nested = st.fixed_dictionaries({"type": st.just("function"), "function": flat})
    return st.lists(flat | nested | st.just({"google_search": {}}), max_size=3)


def _turns(texts: st.SearchStrategy[str], part: str = "text") -> st.SearchStrategy[Any]:
    turn = st.fixed_dictionaries(
        {
            "role": st.sampled_from(["system", "developer", "user", "assistant", "tool"]),
            "content": contents(texts, part),
        }
    )
    return st.lists(turn, max_size=5)


def requests(texts: st.SearchStrategy[str] = TEXTS) -> st.SearchStrategy[dict[str, Any]]:
    """Requests to chat completions, the Responses API, the Messages API and generateContent."""
    chat = st.fixed_dictionaries(
        {"model": st.just("m"), "messages": _turns(texts)},
        optional={"tools": _tools(texts), "temperature": st.floats(0, 2), "stream": st.booleans()},
    )
    responses = st.fixed_dictionaries(
        {"model": st.just("m"), "input": texts | _turns(texts, "input_text")},
        optional={"instructions": texts | st.none(), "tools": _tools(texts)},
    )
    anthropic = st.fixed_dictionaries(
        {"model": st.just("m"), "max_tokens": st.integers(1, 9), "messages": _turns(texts)},
        optional={"system": contents(texts), "tools": _tools(texts)},
    )
    part = st.fixed_dictionaries({"text": texts})
    google = st.fixed_dictionaries(
        {"contents": st.lists(st.fixed_dictionaries({"role": st.just("user"), "parts": st.lists(part)}), max_size=2)},
        optional={
            "systemInstruction": st.fixed_dictionaries({"parts": st.lists(part, max_size=2)}),
            "system_instruction": texts,
            "tools": st.lists(st.fixed_dictionaries({"functionDeclarations": _tools(texts)}), max_size=1),
        },
    )
    return st.one_of(chat, responses, anthropic, google)
