"""The command that shows what the service does, again and again, until it is stopped."""

import time
from collections import deque
from typing import Annotated, Final

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from labelyard.cli.inputs import AsJson
from labelyard.cli.keyboard import Keyboard, open_keyboard
from labelyard.cli.output import print_json
from labelyard.cli.service_state import read_service
from labelyard.cli.tables import print_lines
from labelyard.cli.top_page import Rates, Sample, top_lines
from labelyard.client import Client

#: Seconds over which rates are averaged: single seconds jump.
RATES_OVER_S: Final = 10.0
#: Seconds between the two samples of a single frame.
ONCE_OVER_S: Final = 1.0
QUIT_KEYS: Final = frozenset({"q", "Q", "\x1b", "\x04"})

EveryS = Annotated[float, typer.Option("--every-s", min=0.2, max=3600, help="Seconds to the next")]
Once = Annotated[bool, typer.Option("--once", help="Print one frame, and end")]


def top(every_s: EveryS = 2.0, once: Once = False, as_json: AsJson = False) -> None:
    """Show workers, backlog, rates and faults, live; q or Ctrl-C ends it."""
    console = Console()
    with Client() as client:
        history = History()
        if as_json or once or not console.is_terminal:
            _print_once(client, history, console, as_json=as_json)
            return
        with open_keyboard() as keyboard:
            _show(client, history, console, keyboard, every_s=every_s)


class History:
    """The last samples, for rates over a few seconds."""

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque()

    def add(self, sample: Sample) -> Rates | None:
        """Keep *sample*, and return the rates since the oldest one that is kept."""
        if sample.state.figures is None:
            self._samples.clear()
            return None
        self._samples.append(sample)
        while len(self._samples) > 2 and self._samples[1].at <= sample.at - RATES_OVER_S:
            self._samples.popleft()
        before = self._samples[0] if len(self._samples) > 1 else None
        rates = Rates.between(before, sample)
        if rates is None and before is not None:  # another ledger: begin anew
            self._samples = deque([sample])
        return rates


def read_sample(client: Client) -> Sample:
    """Read the state of the service now."""
    return Sample(read_service(client), at=time.monotonic())


def _print_once(client: Client, history: History, console: Console, *, as_json: bool) -> None:
    """Print one frame, with the rates of one second."""
    history.add(read_sample(client))
    time.sleep(ONCE_OVER_S)
    sample = read_sample(client)
    rates = history.add(sample)
    if as_json:
        fields = sample.state.fields()
        if rates is not None:
            fields["jobs_per_s"] = round(rates.jobs_per_s, 3)
            fields["images_per_s"] = round(rates.images_per_s, 3)
        print_json(fields)
    else:
        width = console.width if console.is_terminal else None
        print_lines(top_lines(sample, rates, width=width, height=None))
    if not sample.state.is_reached:
        raise typer.Exit(3)


def _show(
    client: Client, history: History, console: Console, keyboard: Keyboard, *, every_s: float
) -> None:
    """Draw a frame each *every_s* seconds; a server that is away is shown, and looked for again."""
    try:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                sample = read_sample(client)
                rates = history.add(sample)
                size = console.size
                lines = top_lines(sample, rates, width=size.width, height=size.height - 1)
                lines.append(Text("q quits", style="dim"))
                live.update(Group(*lines), refresh=True)
                if _is_quit(keyboard, until=sample.at + every_s):
                    return
    except KeyboardInterrupt:
        return


def _is_quit(keyboard: Keyboard, *, until: float) -> bool:
    """Wait until the next frame is due; return whether a key that quits was pressed."""
    while (left_s := until - time.monotonic()) > 0:
        if keyboard.wait(left_s) in QUIT_KEYS:
            return True
    return keyboard.wait(0) in QUIT_KEYS
