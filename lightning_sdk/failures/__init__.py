"""What went wrong, whose it is, and the words for it."""
