"""Text on a terminal: made harmless, measured in columns, coloured where that is wanted, and as tables and curves."""
