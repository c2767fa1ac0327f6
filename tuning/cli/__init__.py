"""The command line: thin, every command a few calls into the rooms."""
