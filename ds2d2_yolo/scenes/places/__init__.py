"""Complete scenes, and the zones that they are made of."""
