"""From finished rollouts to token sequences of one role, with what each earned."""
