"""What a user can set: settings, recipes, resources; no torch, no Ultralytics."""
