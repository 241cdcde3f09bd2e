"""The command lines: ``cfsctl`` (main.py and what it loads) and the tools of C composefs."""
