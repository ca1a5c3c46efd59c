"""Run the demo: `make demo`, or `make demo ARGS="--exit"`."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from pathlib import Path

from demo.account import Account, PromiseBroken
from demo.crowd import gather
from demo.stage import CommandFailed, Stage
from demo.story import MODEL, Story, folder_of


def main() -> int:
    """Play the story; return 0 if every promise was kept."""
    parser = argparse.ArgumentParser(prog="make demo ARGS=…", description=__doc__)
    parser.add_argument("--exit", action="store_true", help="end when the story is told")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the timeline there")
    parser.add_argument("--keep", action="store_true", help="leave the folder behind")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    account = Account()
    if options.keep:
        return _play(Path(tempfile.mkdtemp(prefix="pilotwave-demo-")), account, options)
    with tempfile.TemporaryDirectory(prefix="pilotwave-demo-") as folder:
        return _play(Path(folder), account, options)


def _play(root: Path, account: Account, options: argparse.Namespace) -> int:
    quick = {
        "PILOTWAVE_POLL_INTERVAL_S": "1",
        "PILOTWAVE_CHECK_IN_INTERVAL_S": "2",
        "PILOTWAVE_DISTRIBUTION_INTERVAL_S": "5",
    }
    stage = Stage(root, settings=quick)
    try:
        Story(stage, account).play()
        if not options.exit:
            _stay_up(stage, account)
    except (PromiseBroken, CommandFailed) as e:
        _show_logs(stage)
        print(f"demo: FAILED: {e}", flush=True)
        return 1
    except KeyboardInterrupt:
        print("\nstopping", flush=True)
        return 0
    finally:
        stage.close()
        if options.json:
            account.write(options.json)
    figures = ", ".join(f"{name}={value}" for name, value in account.figures.items())
    print(f"demo: ok ({figures})", flush=True)
    return 0


def _stay_up(stage: Stage, account: Account) -> None:
    gather(stage, account, MODEL)
    account.chapter("The fleet stays up until Ctrl-C")
    token = (stage.root / "admin.token").read_text().strip()
    print(f"  export PILOTWAVE_URL={stage.url} PILOTWAVE_TOKEN={token}")
    print(f"  export PILOTWAVE_KEYS={folder_of(stage.root)}/keys")
    print("  .venv/bin/pilotwave devices list")
    made = json.loads(stage.run("pilotwave-server", "login-link", "--data", "data", "--json"))
    print(f"  the web page, once, as admin: {stage.url}{made['login_link']}", flush=True)
    signal.pause()


def _show_logs(stage: Stage) -> None:
    for path in sorted(stage.root.glob("*.log")):
        tail = path.read_text(errors="replace").splitlines()[-8:]
        if tail:
            print(f"--- the end of {path.name}", *tail, sep="\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
