"""The command line: click and nothing else, one file a command."""
