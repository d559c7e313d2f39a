"""What a client gets for a name, and why: the same tables and the same code as what is served, told in words. Pure."""
