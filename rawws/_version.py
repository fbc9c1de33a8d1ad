"""The version of this package, where pyproject.toml reads it too."""

__all__ = ["__version__"]

__version__ = "0.1.0"
