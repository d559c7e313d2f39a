"""hello-server, a greeter that says Hello: its name and defaults; the program itself is the greeting library's."""
