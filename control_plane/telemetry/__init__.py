"""What the operator of a hosted control plane sees: logs, metrics, traces. Off, it costs a look at a variable."""
