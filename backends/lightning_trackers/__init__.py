"""The trackers that `--log-to` takes: one module for each tool, which imports it."""
