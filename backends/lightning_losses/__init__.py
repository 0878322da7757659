"""The losses of reinforcement learning as pure functions of log-probabilities, for every learner that uses torch."""
