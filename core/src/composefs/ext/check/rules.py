"""The rules of docs/protocol.md that an extension can break, by number, in few words."""

from __future__ import annotations

__all__ = ["RULES"]

RULES: dict[int, str] = {
    1: "a message is one JSON object in UTF-8 on one line",
    2: "a line is at most 1 MiB",
    3: "messages are JSON-RPC 2.0",
    4: "numbers and nesting are within bounds",
    5: "standard output carries messages only",
    6: "calls have integer ids of their own; answers have the ids of the calls",
    8: "at most 64 calls are unanswered",
    9: "unknown fields and notifications are ignored",
    10: "no fields but those of the protocol, or x-…",
    11: "only progress, log and output are notifications",
    12: "staged files are regular, flat, and have allowed names",
    13: "names for new staged files are free",
    14: "a list in a message has at most 1,000 rows; one in a file is JSON Lines",
    15: "a listing that was too long is asked for again in a file",
    16: "a staged file that was taken is not used again",
    17: "staging is not overfilled",
    18: "ids are lower-case hex of the repository's algorithm",
    19: "dumps and paths are as in composefs-dump(5)",
    20: "a file's payload in a dump is its digest's path",
    21: "what is named is in the repository",
    22: "a stream that names an image references its objects",
    23: "only the extension's own streams and refs are named",
    24: "only paths that the user typed are used",
    25: "initialize is answered in time, with what was offered",
    26: "the answer to run is the last message",
    27: "a command that writes publishes",
    29: "it ends after cancel, at the end of input, and leaves nothing running",
    30: "run is answered, and the exit status then 0",
    31: "only calls that the command's manifest allows are made",
    32: "a refused row is not taken for a stored one",
    35: "errors have kinds, and a refused call is not taken for success",
    40: "progress does not go back",
    41: "the result fits the command's result_schema",
    42: "the manifest is valid, and its offline examples work",
    43: "parameters have the fields and types of the protocol",
    44: "a result in a file is one JSON object",
}
