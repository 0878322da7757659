"""What a run leaves for people: its folder, reports and curves."""
