"""Soak: hours of mixed load through a network that is never well, and every echo and every order checked."""
