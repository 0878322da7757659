"""Which tokens an answer may contain, for both the engine and the learner."""
