"""Write an extension for cfsctl in Python (standard library only)."""

__version__ = "0.1.0"
