"""The command lines: ``cfsctl``, and the tools of C composefs.

`start` has the entry points.  cfsctl is `main`, with one module in `commands` for each command; `extension` and `kinds`
build the commands of extensions from their manifests; `failures` turns errors into lines.  `settings` are the global
options, `frame` and `complete` what commands and words are to click.  Results go out by `output`, `sinks` show
progress.  The other tools are `mkcomposefs`, `composefs_info` and `mount_composefs`, with what they share in
`standalone`.
"""
