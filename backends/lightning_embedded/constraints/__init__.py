"""What the tokens of an answer may be, for the engine that samples and the learner alike."""
