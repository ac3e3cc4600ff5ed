"""The command line: every command parses, calls the library once, and prints.

Results go to standard output, progress and errors to standard error. Nothing heavy is imported before a
command needs it.
"""
