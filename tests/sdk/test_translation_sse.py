"""Server-sent events: the same data whatever pieces the bytes come in."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_sdk.translation.sse import DONE, EventReader, WholeEvents, event

#: Data of one event: any bytes without a line end.
DATA = st.binary(min_size=1).filter(lambda data: not set(data) & set(b"\r\n"))


def cut(text: bytes, places: list[int]) -> list[bytes]:
    """`text` cut at these places, which count around its length."""
    at = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    return [text[start:stop] for start, stop in itertools.pairwise(at)]


def read(pieces: list[bytes]) -> list[bytes]:
    reader = EventReader()
    return [data for piece in pieces for data in reader.feed(piece)] + reader.end()


@given(st.lists(DATA), st.sampled_from([b"\n", b"\r\n", b"\r"]), st.lists(st.integers(0, 10_000)))
def test_any_pieces_give_the_same_events(events: list[bytes], newline: bytes, places: list[int]) -> None:
    """Wherever the bytes are cut and however lines end, each event's data comes out once and whole."""
    text = b"".join(event(data) for data in events).replace(b"\n", newline)
    assert read(cut(text, places)) == events
    assert read([text[at : at + 1] for at in range(len(text))]) == events


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
def test_an_event_is_given_as_soon_as_it_is_complete(newline: bytes) -> None:
    """Nothing waits for the next event: a reader of a slow stream would lag one token behind."""
    assert EventReader().feed(b"data: a" + newline * 2) == [b"a"]


def test_what_is_not_data_is_skipped() -> None:
    """Comments (a server's keep-alive), names, ids and events without data give nothing."""
    text = b": ping\n\nevent: x\nid: 7\ndata:a\ndata: b\n\nevent: empty\n\ndata:  c\ndatax: d\n\ndata: [DONE]\n\n"
    assert read([text]) == [b"a\nb", b" c", DONE]


def test_a_last_event_without_its_blank_line_comes_at_the_end() -> None:
    """Some servers close the connection right after the last line."""
    reader = EventReader()
    assert reader.feed(b"data: a\n\ndata: b") == [b"a"]
    assert reader.end() == [b"b"] and reader.end() == []


def test_an_empty_piece_changes_nothing() -> None:
    """Not even between the two characters of one line end."""
    assert read([b"data: a\r", b"", b"\n", b"\r", b"", b"\n"]) == [b"a"]


def test_an_event_has_its_name_and_its_data_as_json() -> None:
    """Text stays readable in it, and a line end inside a value is escaped by JSON."""
    written = event({"type": "x", "text": "é\n"}, "x")
    assert written.startswith(b"event: x\ndata: {") and written.endswith(b"}\n\n")
    assert [json.loads(data) for data in read([written])] == [{"type": "x", "text": "é\n"}]


def test_bytes_are_held_back_until_their_event_is_whole() -> None:
    """What has its blank line goes on at once, several events together, and the rest when the stream ends."""
    events = WholeEvents()
    assert [events.feed(piece) for piece in (b"data: a", b"\n", b"\ndata: b\n\ndata: c\n\nda", b"ta: d")] == [
        b"",
        b"",
        b"data: a\n\ndata: b\n\ndata: c\n\n",
        b"",
    ]
    assert events.end() == b"data: d"
    assert events.end() == b""
