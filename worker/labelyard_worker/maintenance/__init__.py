"""Background duties of a worker, each a thread of its own or a part of one.

- ``presence.py``: renews the key by which others know that this worker lives.
- ``cancellation_listener.py``: stops running jobs that were cancelled elsewhere.
- ``leader.py``: elects the one worker that reconciles.
- ``reconciler.py``: republishes due retries and lost messages, and expires overdue jobs.
- ``leader_duties.py``: tenants' weights in the broker, a backlog that agrees with
  the records, and the bounds of the event stream.
- ``broker_view.py``: snapshots of the broker's queues for the reconciler.

The visibility heartbeat lives beside the messages that it renews, in ``broker/``; the watchdog
beside the jobs that it limits, in ``jobs/``.
"""
