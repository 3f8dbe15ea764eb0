"""The worker of ``instant`` with a quick heartbeat, so that a half-open connection shows soon.

It is ``TEST_HEARTBEAT_S`` long.
"""

import os

from tests.support.apps.instant import app

app.conf.broker_heartbeat = int(os.environ.get("TEST_HEARTBEAT_S", "2"))
