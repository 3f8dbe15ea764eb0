"""The worker of ``instant`` with a quick heartbeat, so that a half-open connection shows soon."""

from tests.support.apps.instant import app

app.conf.broker_heartbeat = 2
