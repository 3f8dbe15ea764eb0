"""An operator's view of the worker: logs, health, metrics."""
