"""The signal watch: looks at each round of a training before it is learned from, and stops what leads nowhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from lightning_hub.credit.batch import TrainingBatch
from lightning_hub.diagnosis import flatness
from lightning_hub.results.run_folder import RunFolder
from lightning_hub.rollouts.rounds import Round, Rounds
from lightning_hub.training import checks
from lightning_sdk.errors import NothingToTrain
from lightning_sdk.results.diagnosis import Diagnosis
from lightning_sdk.results.run_files import StepMetrics
from lightning_sdk.settings import Settings
from lightning_sdk.settings.provider import PROMPTS


class SignalWatch:
    """The watch of one run."""

    def __init__(self, settings: Settings, folder: RunFolder, warn: Callable[[str], None], diagnoses: bool) -> None:
        """`diagnoses`: whether the first round of each mode is diagnosed."""
        self._settings, self._folder, self._warn = settings, folder, warn
        self._undiagnosed = {"train", "evaluate"} if diagnoses else set[str]()
        """Modes of which no round has been diagnosed."""
        self._told: set[str] = set()
        self._flat_steps: int | None = 0
        """Steps of this run without a signal, from the first one on; None since one had a signal."""

    def resume(self, steps: Iterable[StepMetrics]) -> None:
        """These steps were done before. Those of a search have nothing that could be flat."""
        if not all(step.get("flat", True) for step in steps):
            self._flat_steps = None

    def examine(self, round_: Round, rounds: Rounds) -> None:
        """RolloutsFailed or NothingToTrain for a round that cannot be used; the first of each mode is diagnosed."""
        checks.refuse_failures(round_.rollouts, round_.name, self._settings.failure.max_failed)
        if round_.rollouts[0].mode in self._undiagnosed:
            self._undiagnosed.discard(round_.rollouts[0].mode)
            self._tell(rounds.diagnosis(round_))

    def note_step(self, round_: Round, batch: TrainingBatch, rounds: Rounds) -> None:
        """Warn of a first step without a signal; NothingToTrain after `failure.flat_steps` steps like it, unless other
        prompts may bring one."""
        if batch.rows and not batch.is_flat:
            self._flat_steps = None
        if self._flat_steps is None or not batch.is_flat:
            return
        self._flat_steps += 1
        limit = self._settings.failure.flat_steps if self._settings.tune != PROMPTS else 0
        if self._flat_steps not in {1, limit} or (flat := rounds.flatness(round_)) is None:
            return
        if self._flat_steps == limit:
            raise NothingToTrain(checks.no_signal(flat, limit))
        self._warn(checks.first_without_signal(flat, round_.name, limit))

    def _tell(self, diagnosis: Diagnosis) -> None:
        """Stop for what can never be learned from, and warn once of the rest."""
        self._folder.diagnosis(diagnosis)
        checks.refuse_unlearnable(diagnosis)
        for finding in diagnosis.findings:
            # Whether there is a signal is known once further tasks were tried: see `note_step`.
            if finding.kind not in {*self._told, flatness.KIND}:
                self._told.add(finding.kind)
                self._warn(str(finding))
