"""howdy-server, a greeter that says Howdy: its name and defaults; the program itself is the greeting library's."""
