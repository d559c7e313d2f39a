"""hello-client, which calls hello-server: its name and defaults; the program itself is the greeting library's."""
