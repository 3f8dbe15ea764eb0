"""Sources that push: events of object storage become jobs by a rule file.

``labelyard ingest`` runs :class:`labelyard.ingest.service.IngestService`. A notification is read
(``notifications.py``), its events are matched with the rules (``rules.py``), and each rule's queue
makes jobs of its events (``rule_queue.py``); the sender gets its answer when the jobs have records.
"""
