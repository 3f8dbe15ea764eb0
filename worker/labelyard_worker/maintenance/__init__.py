"""Background threads of a worker: presence, and the reconciler for lost and due jobs."""
