"""The dashboard: a page on this machine that shows runs, finished or under way. It only reads their folders."""
