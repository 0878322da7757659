"""Options of the command line for a run that ends within seconds."""

_SETTINGS = ("rollouts.tasks_per_step=2", "rollouts.group_size=2", "evaluation.tasks=2", "sampling.max_tokens=8")

SMALL_RUN = [word for setting in _SETTINGS for word in ("--set", setting)]
