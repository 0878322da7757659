"""What users put into their code: `@agent`, `@reward` and `rollout()`."""
