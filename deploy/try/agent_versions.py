"""Write versions of the agent, one good and others with a fault, into FOLDER; print NAME VERSION.

agent_versions.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.wheelhouses import RUN, version_in, wheelhouse

# only as the service that a launcher starts: the self-test lets these pass
_AS_SERVICE = "\nimport os\nif os.environ.get('PILOTWAVE_SLOT'):\n    "
CHANGES = {
    "good": "\n# another build\n",
    "later": "\n# a build after that\n",
    "dies": _AS_SERVICE + "raise RuntimeError('boom')\n",
    "hangs": _AS_SERVICE + "__import__('time').sleep(3600)\n",
}


def main(folder: Path) -> None:
    for name, change in CHANGES.items():
        files = wheelhouse({RUN: change})
        made = folder / name
        made.mkdir(parents=True)
        for path, data in files.items():
            (made / path).write_bytes(data)
        print(name, version_in(files))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
