"""From the files of a repository to checked metadata and to verified files in staging, by several processes."""
