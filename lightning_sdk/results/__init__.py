"""What a run left, as both sides read it: its scores, its report, and the files of its folder."""
