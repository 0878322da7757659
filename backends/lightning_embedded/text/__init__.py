"""Text and tokens: chat templates, tool calls in a completion, and text that grows."""
