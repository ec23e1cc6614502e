"""What everything in drawn scenes is made of: canvas, poses, noise and colours."""
