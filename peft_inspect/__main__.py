"""The entry point of the `peft-inspect` command, and of `python -m peft_inspect`."""

import os
import signal
import sys
from typing import Any, NoReturn


def main() -> None:
    """Run the command line; Ctrl-C ends it as cleanly while its modules are being imported."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # else whoever started the command wants it otherwise
        signal.signal(signal.SIGINT, _end)
    from peft_inspect.cli import main as run

    signal.signal(signal.SIGINT, before)
    run()


def _end(*_: Any) -> NoReturn:
    """End at once: an exception would be turned into another by the import that it interrupts, or be lost."""
    sys.stderr.write("peft-inspect: interrupted\n")
    sys.stderr.flush()
    os._exit(130)


if __name__ == "__main__":
    main()
