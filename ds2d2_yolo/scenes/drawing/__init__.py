"""What everything in drawn scenes is made of: pictures, places, noise and colours."""
