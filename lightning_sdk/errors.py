"""Errors that reach the user, as one tree.

LightningError
├── SettingError        a setting is unknown, malformed, or not honoured by the backend
├── TaskError           a task file or a task in it cannot be read
├── ModelError          a model folder or name is not usable
├── RewardError         a reward is not a finite number
├── PromptError         a text cannot be marked, or cannot stand in the place of a prompt
├── BudgetSpent         what a search may spend does not allow this call
├── HubError            the hub cannot be started, reached or trusted
│   ├── HubGone         the hub stopped answering
│   └── HubRefused      the hub refused this process (wrong key, wrong protocol)
├── BackendDied         the backend ended while it started or served, or no longer answers
├── DiskError           a disk is full or cannot be written to
├── PortInUse           another process uses the address
├── NothingToTrain      no call of a trainable role was captured
├── RolloutsFailed      too many rollouts failed
├── UnsupportedVersion  an integration does not support the installed version of its framework
└── Untranslatable      a request needs something that the engine's protocol cannot express
"""

from collections.abc import Iterator


class LightningError(Exception):
    """Base of every error that the SDK raises on purpose. The message says what to do."""


class SettingError(LightningError):
    """A setting is unknown, malformed, or not honoured by the chosen backend."""


class TaskError(LightningError):
    """A task file or a task in it cannot be read."""


class ModelError(LightningError):
    """A model folder or name is not usable."""


class RewardError(LightningError):
    """A reward is not a finite number."""


class PromptError(LightningError):
    """A text cannot be marked as a prompt, or a candidate's text cannot stand in the place of one."""


class BudgetSpent(LightningError):
    """What a search may spend does not allow this call, which was not sent. The rollout gets no score."""


class HubError(LightningError):
    """The hub cannot be started, reached or trusted."""


class HubGone(HubError):
    """The hub stopped answering."""


class HubRefused(HubError):
    """The hub refused this process: wrong key, wrong protocol, or not allowed."""


class BackendDied(LightningError):
    """The backend ended while it started or served, or no longer answers."""


class DiskError(LightningError):
    """A disk is full or cannot be written to. What was saved before is intact, and a training can be resumed."""


class PortInUse(LightningError):
    """Another process already uses the address."""


class NothingToTrain(LightningError):
    """No call of a trainable role was captured, so there is nothing to learn from."""


class RolloutsFailed(LightningError):
    """Too many rollouts failed for the training to continue."""


class UnsupportedVersion(LightningError):
    """An integration does not support the installed version of its framework, and stays off."""


class Untranslatable(LightningError):
    """A request in another protocol needs something that chat completions cannot express."""


#: Name on the wire -> class, so that an error raised in the hub is raised again, as itself, in the user's process.
BY_NAME: dict[str, type[LightningError]] = {
    error.__name__: error
    for error in (
        LightningError,
        SettingError,
        TaskError,
        ModelError,
        RewardError,
        PromptError,
        BudgetSpent,
        HubError,
        HubGone,
        HubRefused,
        BackendDied,
        DiskError,
        PortInUse,
        NothingToTrain,
        RolloutsFailed,
        UnsupportedVersion,
        Untranslatable,
    )
}


def make_error(name: str, text: str) -> LightningError:
    """The error of this name on the wire; LightningError if no class has it."""
    return BY_NAME.get(name, LightningError)(text)


_LONGEST_CHAIN = 10


def message(error: BaseException) -> str:
    """The text of an error, or a note that its own `__str__` raised."""
    try:
        return str.__str__(str(error))  # not a subclass, whose own methods would be called
    except BaseException as raised:
        return f"(its message cannot be shown: __str__ raised {type(raised).__name__})"


def chain(error: BaseException, *, implicit: bool = False) -> Iterator[BaseException]:
    """The error and what it was raised from; with `implicit` also what was being handled when it was raised."""
    at: BaseException | None = error
    for _ in range(_LONGEST_CHAIN):
        if at is None:
            return
        yield at
        at = at.__cause__ or (at.__context__ if implicit else None)
