"""The command lines: ``cfsctl`` (main.py and what it loads) and the multicall tool ``mkcomposefs``."""
