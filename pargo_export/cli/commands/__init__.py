"""One module a command; each has one `click.Command` called `command`."""
