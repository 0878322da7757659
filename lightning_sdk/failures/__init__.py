"""What went wrong, whose fault it is, and the words for it."""
