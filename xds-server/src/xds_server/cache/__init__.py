"""Who subscribes to what, the resources they get, and which of them a change of the model touches."""
