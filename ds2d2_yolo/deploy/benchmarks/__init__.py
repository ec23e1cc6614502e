"""Speed, size and accuracy of models and formats on this machine."""
