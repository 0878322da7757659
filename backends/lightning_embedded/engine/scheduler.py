"""The scheduler: assigns sequences to slots, and generates tokens with `admit` and `step`.

Prompts are computed once: identical waiting prompts share one computation, and a prompt with the same beginning as the
content of a slot continues from there. Called from the engine's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from lightning_embedded.engine.decoder import Decoder
from lightning_embedded.engine.fair_queue import FairQueue
from lightning_embedded.engine.sampler import Draw, Knobs, sample
from lightning_embedded.engine.sequence import Sequence
from lightning_embedded.engine.slots import Slots

#: Padded prompt tokens computed in one forward pass, and prompt tokens admitted in one iteration of the loop.
_PREFILL_TOKENS = 4096
#: Shorter common beginnings are cheaper to compute than to copy.
_WORTH_COPYING = 16


@dataclass(slots=True)
class Stats:
    """Counters since the start."""

    steps: int = 0
    generated: int = 0
    """Tokens sampled."""
    computed: int = 0
    """Prompt tokens computed by the model."""
    reused: int = 0
    """Prompt tokens whose keys and values were already in the cache."""


@dataclass(slots=True)
class _Join:
    """Sequences with the same tokens so far, which are computed once."""

    tokens: NDArray[np.int32]
    members: list[Sequence]
    slot: int = -1
    start: int = 0
    followers: list[int] = field(default_factory=list)


class Scheduler:
    """Sequences in slots, and those that wait for a slot."""

    def __init__(self, decoder: Decoder, slots: Slots, ends: frozenset[int], version: int) -> None:
        self.rows: list[Sequence | None] = [None] * slots.count
        """The sequence that runs in each slot."""
        self.waiting = FairQueue()
        self.news: dict[Callable[[list[Sequence]], None], list[Sequence]] = {}
        """Receiver -> its sequences with news in this iteration of the loop."""
        self.version = version
        """Version of the decoder's weights."""
        self.stats = Stats()
        self._decoder = decoder
        self._slots = slots
        self._ends = ends
        self._max_length = slots.room.length
        self._knobs: Knobs | None = None
        self._releases = 0

    @property
    def busy(self) -> bool:
        return bool(self.waiting) or any(row is not None for row in self.rows)

    def restart(self, version: int) -> None:
        """Called when the weights have changed: recompute all running sequences before their next token."""
        self.version = version
        running = [row for row in self.rows if row is not None]
        self.rows = [None] * len(self.rows)
        self.waiting.put_back(running)
        self._slots.forget()
        self._knobs = None

    def drop_aborted(self) -> None:
        self.waiting.drop_aborted()
        for sequence in self.rows:
            if sequence is not None and sequence.aborted:
                self._finish(sequence, "abort")

    def fail(self, late: Iterable[Sequence]) -> None:
        """End all sequences, including `late`, with finish 'error'."""
        for sequence in [*(row for row in self.rows if row is not None), *self.waiting, *late]:
            sequence.finish = "error"
            self.news.setdefault(sequence.receiver, []).append(sequence)

    def admit(self) -> None:
        """Move waiting sequences into free slots, and generate the first token of each."""
        if not self.waiting:
            return
        if self._slots.length > self._slots.room.base:
            self._shorten()
        joins = self._choose()
        self._place(joins)
        joins.sort(key=lambda join: len(join.tokens) - join.start)
        at = 0
        while at < len(joins):
            end = at + 1
            # Sorted by length, so the last of a batch is the widest.
            while end < len(joins) and (end + 1 - at) * (len(joins[end].tokens) - joins[end].start) <= _PREFILL_TOKENS:
                end += 1
            self._prefill(joins[at:end])
            at = end

    def _choose(self) -> list[_Join]:
        """As many waiting sequences as fit, from each client in turn, grouped by identical prompts."""
        room, budget = sum(row is None for row in self.rows), _PREFILL_TOKENS
        joins: dict[bytes, _Join] = {}
        while self.waiting and room > 0 and budget > 0:
            sequence = self.waiting.take()
            if sequence.aborted:
                continue
            tokens = np.array(sequence.all_ids(), np.int32)
            if len(tokens) > self._slots.length:
                # Sequences that were chosen before it have no slot yet, and may have to wait again.
                chosen = [each for join in joins.values() for each in join.members]
                self.waiting.put_back([*chosen, sequence])
                self._lengthen(len(tokens))
                return self._choose()
            join = joins.setdefault(tokens.tobytes(), _Join(tokens, []))
            if not join.members:
                budget -= len(tokens)
            join.members.append(sequence)
            room -= 1
        return list(joins.values())

    def _lengthen(self, needed: int) -> None:
        """Make room for `needed` tokens in each row. Sequences that lose theirs are computed again when one is free."""
        length = self._slots.room.fit(needed)
        running = sorted((row for row in self.rows if row is not None), key=lambda row: -len(row.token_ids))
        keep = max(1, self._slots.room.rows(length) - bool(self.waiting))
        for sequence in running[keep:]:
            self.rows[sequence.slot] = None
        self.waiting.put_back(running[keep:])
        self._compact(tight=True)
        self._resize(length)

    def _shorten(self) -> None:
        """Make rows shorter, and thus more, if everything that runs and waits has room in them."""
        if None in self.rows:
            return
        longest = max(len(each.prompt) + len(each.token_ids) for each in (*self.rows, *self.waiting) if each)
        length = self._slots.room.fit_loosely(longest)
        if length < self._slots.length:
            self._resize(length)

    def _resize(self, length: int) -> None:
        self._slots.resize(length)
        count = self._slots.count
        self.rows = self.rows[:count] + [None] * (count - len(self.rows))
        self._knobs = None

    def _place(self, joins: list[_Join]) -> None:
        """Assign a slot to every sequence, reusing keys and values that a slot already has."""
        taken = np.array([row is not None for row in self.rows])
        sources: list[int] = []
        targets: list[int] = []
        longest = 0
        for join in joins:
            matches = self._slots.match(join.tokens)
            best = int(matches.argmax())
            common = min(int(matches[best]), len(join.tokens) - 1)
            whole = not taken[best] and common > 0 and common >= self._slots.lengths[best] - 1
            slot = best if whole else -1
            if whole:
                taken[best] = True
            elif common < _WORTH_COPYING:
                common = 0
            join.slot, join.start = slot, common
            if not whole and common:
                sources.append(best)
                longest = max(longest, common)
        free = iter(sorted(np.flatnonzero(~taken).tolist(), key=lambda slot: int(self._slots.used[slot])))
        for join in joins:
            if join.slot < 0:
                join.slot = next(free)
                if join.start:
                    targets.append(join.slot)
            join.followers = [next(free) for _ in join.members[1:]]
        self._slots.copy(sources, targets, longest)
        for join in joins:
            self._slots.note(join.slot, 0, join.tokens[: join.start].tolist())
            for sequence, slot in zip(join.members, [join.slot, *join.followers], strict=True):
                sequence.slot = slot
                self.rows[slot] = sequence
            self.stats.reused += len(join.tokens) * len(join.members) - (len(join.tokens) - join.start)
        self._knobs = None

    def _prefill(self, joins: list[_Join]) -> None:
        """Compute the prompts of `joins` together, copy each to its followers, and generate a first token for all."""
        rows = np.array([join.slot for join in joins])
        starts = np.array([join.start for join in joins])
        widths = np.array([len(join.tokens) for join in joins]) - starts
        ids = np.zeros((len(joins), int(widths.max())), np.int64)
        for line, join in zip(ids, joins, strict=True):
            line[: len(join.tokens) - join.start] = join.tokens[join.start :]
        self._slots.aim(rows, starts, widths, front=False)
        logits = self._decoder(ids, starts, widths, self._slots)
        self.stats.computed += int(widths.sum())
        shared = [(join.slot, follower, len(join.tokens)) for join in joins for follower in join.followers]
        if shared:
            self._slots.copy([one[0] for one in shared], [one[1] for one in shared], max(one[2] for one in shared))
        for join in joins:
            for slot in (join.slot, *join.followers):
                self._slots.note(slot, 0, join.tokens.tolist())
        members = [sequence for join in joins for sequence in join.members]
        if len(members) > len(joins):
            counts = torch.tensor([len(join.members) for join in joins], device=logits.device)
            logits = logits.repeat_interleave(counts, 0)
        self._accept(members, sample(logits, _knobs(members), [s.random() for s in members]))

    def step(self) -> None:
        """Generate one token for every sequence that has a slot."""
        count = self._compact()
        if count == 0:
            return
        rows = self.rows[:count]
        if self._knobs is None:
            self._knobs = _knobs(rows)
        live = np.array([row is not None for row in rows])
        starts = np.where(live, self._slots.lengths[:count], 0)
        if (longest := int(starts.max())) == self._slots.length:
            self._lengthen(longest + 1)
            self.step()
            return
        last = np.array([row.token_ids[-1] if row else 0 for row in rows], np.int64)
        self._slots.aim(np.arange(count), starts, live.astype(np.int64), front=True)
        logits = self._decoder(last[:, None], starts, np.ones(count, np.int64), self._slots)
        here = np.flatnonzero(live)
        self._slots.tokens[here, starts[here]] = last[here]
        self._slots.lengths[here] += 1
        self.stats.steps += 1
        uniforms = [row.random() if row else 0.0 for row in rows]
        self._accept(rows, sample(logits, self._knobs, uniforms))

    def _compact(self, tight: bool = False) -> int:
        """Number of rows that the next step computes. Gaps are closed once they exceed an eighth, or if `tight`."""
        used = [slot for slot, row in enumerate(self.rows) if row is not None]
        count = len(used)
        gaps = used[-1] + 1 - count if used else 0
        if gaps * 8 <= (0 if tight else count):
            return used[-1] + 1 if used else 0
        free = [slot for slot in range(count) if self.rows[slot] is None]
        tail = used[count - len(free) :]
        self._slots.swap(free, tail)
        for gap, slot in zip(free, tail, strict=True):
            sequence = self.rows[slot]
            assert sequence is not None
            self.rows[gap], self.rows[slot] = sequence, None
            sequence.slot = gap
        self._knobs = None
        return count

    def _accept(self, rows: list[Sequence] | list[Sequence | None], draw: Draw) -> None:
        """Append the drawn tokens, and end the sequences that are complete."""
        ids, logprobs = draw.ids.tolist(), draw.logprobs.tolist()
        ends, version, room = self._ends, self.version, self._max_length
        for place, sequence in enumerate(rows):
            if sequence is None:
                continue
            token = ids[place]
            if sequence.params.top_logprobs:
                sequence.tops.append(draw.top(place, sequence.params.top_logprobs))
            sequence.append(token, logprobs[place], version)
            self.stats.generated += 1
            made = len(sequence.token_ids)
            if token in ends or token in sequence.params.stop_ids or self._has_stopped(sequence, token):
                self._finish(sequence, "stop")
            elif made >= sequence.params.max_tokens or len(sequence.prompt) + made >= room:
                self._finish(sequence, "length")
            else:
                if sequence.constraint is not None:
                    sequence.constraint.accept(token)
                if sequence.stream:
                    self.news.setdefault(sequence.receiver, []).append(sequence)

    def _has_stopped(self, sequence: Sequence, token: int) -> bool:
        if sequence.text is None:
            return False
        sequence.text.feed([token])
        return sequence.text.stopped

    def _finish(self, sequence: Sequence, reason: str) -> None:
        self._releases += 1
        self._slots.used[sequence.slot] = self._releases
        self.rows[sequence.slot] = None
        self._knobs = None
        sequence.finish = reason
        if not sequence.aborted:
            self.news.setdefault(sequence.receiver, []).append(sequence)


def _knobs(rows: list[Sequence] | list[Sequence | None]) -> Knobs:
    """How each row is sampled. Empty rows are greedy, which costs nothing."""
    return Knobs(
        [row.params.temperature if row else 0.0 for row in rows],
        [row.params.top_p if row else 1.0 for row in rows],
        [row.constraint if row else None for row in rows],
        [(place, row) for place, row in enumerate(rows) if row and row.is_penalised],
    )
