"""What the page shows: each view is a pure function from the state to plain data, which a template renders."""
