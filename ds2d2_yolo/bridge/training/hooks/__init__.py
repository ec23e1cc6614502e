"""What a trainer does besides training: checkpoints, resume, guards, batch and image sizes."""
