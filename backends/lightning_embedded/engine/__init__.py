"""Continuous batching: sequences, slots, the decoder and the sampler."""
