"""A worker that the hub starts: ``python -m nbqueue.cli.launched FOLDER HUB_NAME SLOTS OFFER``, its input a lifeline.

A call waits for its first result until this process is up, so the zygote is started before anything else is loaded.
"""

from __future__ import annotations

import sys

from nbqueue.worker.zygote_process import ZygoteProcess, usual_name


def main() -> None:
    """Work for the hub until it ends."""
    folder, hub_name, slots, offer = sys.argv[1:]
    name = usual_name()
    zygote = ZygoteProcess(name, slots=int(slots))

    from nbqueue.cli.log import log_events
    from nbqueue.core.routing import decode_offer
    from nbqueue.errors import NBQueueError
    from nbqueue.settings import Settings
    from nbqueue.worker.program import work

    log_events()
    settings = Settings.load(hub_name=hub_name, runtime_dir=folder)
    try:
        work(settings, int(slots), name, zygote=zygote, offer=decode_offer(offer), lifeline=sys.stdin.fileno())
    except NBQueueError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
