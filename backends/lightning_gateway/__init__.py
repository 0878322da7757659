"""The gateway: OpenAI's and Anthropic's API in front of any engine or provider, for agents that cannot be patched."""
