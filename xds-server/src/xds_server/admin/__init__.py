"""What operators and probes look at: health, metrics and the state as JSON, over HTTP. Reads, and changes nothing."""
