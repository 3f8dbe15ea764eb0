"""Messages between the broker and Celery, without loss: receive, claim, record, acknowledge.

On Redis, in the order of a message's life:

- ``transport.py``: kombu's Redis transport with our parts; ``poller.py`` drives its channels.
- ``channel.py``: sends claims and reads their replies; ``empty_queues.py`` lets it idle, and
  ``claim_gate.py`` holds claims back while enough jobs compute and tenants take turns.
- ``claim.py``: the script that pops a message and records it as unacknowledged; tenants take turns
  (``labelyard/tenant_lines``). ``line_merge.py`` undoes the sorting for stock workers.
- ``receipt.py``: hands the message over to Celery; undeliverable ones go to ``malformed.py``.
- ``qos.py``: bookkeeping of unacknowledged messages; ``acks.py`` acknowledges them in groups,
  ``restore.py`` returns one to its queue, ``visibility.py`` stamps and finds overdue ones,
  ``visibility_heartbeat.py`` renews those of running jobs.

On RabbitMQ: ``amqp_transport.py`` and ``rabbitmq.py`` (a prefetch count for each queue).

On both: ``admission.py`` decides from an envelope (``envelopes.py``) which call (``calls.py``)
Celery gets; ``thread_pool.py`` runs it; ``remote_control.py`` restricts Celery's remote control;
``old_lists.py`` takes over messages that earlier versions set aside.
"""
