"""The command ``labelyard-worker``, or one sentence about the extra that it needs."""

import sys
from typing import Final

ADVICE: Final = (
    "labelyard-worker needs libraries that are not installed: pip install 'labelyard[worker]'"
)


def main() -> None:
    """Run the command line; exit with 2 if its extra is not installed."""
    try:
        from labelyard_worker.cli import app
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "typer":
            raise
        sys.stderr.write(f"{ADVICE}\n")
        raise SystemExit(2) from error
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    app()


if __name__ == "__main__":
    main()
