"""The gateway: OpenAI's and Anthropic's APIs in front of any engine or provider, for agents that cannot be patched."""
