"""What the hub keeps: the log of events, the index into it, and the database."""
