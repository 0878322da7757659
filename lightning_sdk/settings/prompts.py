"""The settings of prompt optimisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from lightning_sdk.settings.groups import Group
from lightning_sdk.settings.ranges import AtLeast, Between, OneOf


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompts(Group):
    """How prompts are tuned, with `--backend prompts`. `steps` is the maximum number of rounds."""

    algorithm: Annotated[str, OneOf("reflective", "apo")] = "reflective"
    """How better texts are looked for: 'reflective' (evolution with a Pareto front of candidates, arXiv:2507.19457) or
    'apo' (beam search with textual gradients, arXiv:2305.03495, and races, arXiv:2504.16005)."""
    reflect_with: str = ""
    """The model that proposes texts: its name at OpenAI or Anthropic, or an address of another server with an API of
    either kind, followed by '#' and the model's name if the server has several. 'engine' is the run's own engine, if it
    has one (`model`). In Python also a function that answers a question."""
    reflect_key: str = ""
    """Environment variable that holds the key of that model; empty: OPENAI_API_KEY or ANTHROPIC_API_KEY."""
    budget_rollouts: Annotated[int, AtLeast(1)] = 400
    """Maximum number of rollouts of the search; the scores on held-out tasks come on top."""
    budget_calls: Annotated[int, AtLeast(0)] = 0
    """Maximum number of calls to models in the search, the agent's own and those of the reflecting model; 0: no
    limit."""
    budget_tokens: Annotated[int, AtLeast(0)] = 0
    """Maximum number of tokens that these calls read and write; 0: no limit."""
    budget_money: Annotated[float, AtLeast(0)] = 0.0
    """Maximum number of dollars that these calls cost, by `prices`; 0: no limit."""
    prices: str = ""
    """TOML or JSON file with the price of each model that is called, in dollars per million tokens:
    {"gpt-5": {"input": 1.25, "output": 10, "cached": 0.125}}."""
    reply_tokens: Annotated[int, AtLeast(0)] = 0
    """Maximum number of tokens that the agent's models write in one reply where a request sets no limit; needed with a
    budget of tokens or money if the agent's requests have none."""
    budget_minutes: Annotated[float, AtLeast(0)] = 0.0
    """Minutes after which nothing new is begun, over all sessions of a run; 0: no limit."""
    tool_descriptions: bool = False
    """Whether the descriptions of tools are tuned too. They are what the model chooses tools by, and the tools do not
    change with them."""
    reflection: Annotated[float, Between(0, 1, "()")] = 0.4
    """Fraction of the training tasks that the reflecting model is shown; candidates are compared on the others."""
    proposals: Annotated[int, AtLeast(1)] = 4
    """Number of texts proposed in each round, side by side."""
    minibatch: Annotated[int, AtLeast(1)] = 3
    """Number of tasks that one question to the reflecting model shows."""
    beam: Annotated[int, AtLeast(1)] = 3
    """Number of candidates that 'apo' continues with after each round."""
    seeds: Annotated[int, AtLeast(1)] = 1
    """Number of rollouts of each candidate on each task, whose mean is its score."""
    max_length: Annotated[int, AtLeast(0)] = 0
    """Maximum number of characters of one text; 0: four times the original, and at least 8,000."""
    length_penalty: Annotated[float, AtLeast(0)] = 0.002
    """What 1,000 more characters cost when candidates are compared, in units of the reward."""
