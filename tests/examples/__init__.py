"""The programs of examples/: their tasks, tools and graders, and short trainings of those that need no framework."""
