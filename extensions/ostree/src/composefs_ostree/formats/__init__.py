"""What a repository and a commit's stream are made of: a module a format, bytes in and out, no input or output."""
