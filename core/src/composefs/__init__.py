"""composefs for Python: repositories, the formats in them, and the host of extensions.

A program that uses it as a library begins with :class:`composefs.repository.Repository`.
"""

__version__ = "0.1.0"
