"""What stands and moves in drawn scenes."""
