"""howdy-client, which calls howdy-server: its name and defaults; the program itself is the greeting library's."""
