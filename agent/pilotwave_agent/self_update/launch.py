"""Start the agent: the version that is to run, or the one before it while that one is unproved.

systemd starts this file by its path. It imports the standard library alone, so that no version of
the agent, however broken, keeps it from starting another one:

    python -I launch.py DATA PROGRAM … -- run --config FILE

1. `models/pilotwave-agent/current` names the version that is to run; without that link it is
   PROGRAM, the agent that was installed by hand. Nothing here moves the link.
2. A version on trial (`agent/trial.json` names it) is started `MOST_STARTS` times at most; each
   start is on disk before it begins. After that, or when its time is over, what ran before it is
   started instead, which then takes the version back and says why.
3. A trial's start is watched by a process that ends it when its time is over and it has proved
   nothing: one that hangs comes back here. All else is exec, so that systemd has one process.
4. A version that was kept, and then ends `MOST_ENDS` times within `ENDS_WITHIN_S` of one boot
   without having been told to, is started no more: what `agent/kept.json` names is, which the agent
   had found allowed. That one takes it back as after a trial.
5. A version whose program is not there, or cannot be started, is passed over in the same way.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import NoReturn

MODEL = "pilotwave-agent"
INSTALLED = "installed"
"""The name of the agent that was installed by hand; no version's folder is called so."""
MOST_STARTS = 5

PATIENCE = 1.5
"""So many times its time a start may take before it is ended from outside: an agent that still can
takes itself back first, and says more."""

MOST_ENDS = 10
ENDS_WITHIN_S = 3600.0
"""So often a version that was kept may end by itself in so long a time; a hang is one end each time
that systemd's watchdog finds it."""

SLOT = "PILOTWAVE_SLOT"
"""The variable that tells an agent which one it is: a version's folder, or `INSTALLED`."""
DATA = "PILOTWAVE_SLOT_DATA"
"""The variable that names the data folder with the notes."""
PASSED_OVER = "PILOTWAVE_PASSED_OVER"
"""The variable that names the version which was to run and was not started."""
PYTHON = "PILOTWAVE_INSTALLED_PYTHON"
"""The variable that names the interpreter of the agent that was installed by hand."""


class BadTrial(ValueError):
    """The note of a trial cannot be read."""


@dataclass(frozen=True)
class Trial:
    """The note of a trial: of which version (its folder, and the number of its switch), what ran
    before it, how long one start may take to prove itself (seconds), how often it was started;
    `taken` once it has proved itself, `failed` is why it will not be started again."""

    folder: str
    number: int
    back: str
    within_s: float
    starts: int = 0
    taken: bool = False
    failed: str = ""

    def to_bytes(self) -> bytes:
        """Write it as it lies on disk."""
        return json.dumps(asdict(self)).encode() + b"\n"


@dataclass(frozen=True)
class Kept:
    """The note of the version that was kept (its folder): `back` is what may run instead of it,
    `starts` are the seconds of this `boot` at which it was started, as long as it has not ended
    well since; `failed` is why it will not be started again."""

    folder: str
    back: str
    boot: str = ""
    starts: Sequence[float] = ()
    failed: str = ""


def kept_path(data: Path) -> Path:
    """Return where that note lies."""
    return data / "agent" / "kept.json"


def read_kept(data: Path) -> Kept | None:
    """Return the note; None if there is none, or none that can be read: the version has proved
    itself, and a damaged note is no reason against it."""
    try:
        found = json.loads(kept_path(data).read_bytes())
        kept = Kept(**{f.name: found[f.name] for f in fields(Kept) if f.name in found})
        if not all(map(_plain, (kept.folder, kept.back))) or type(kept.failed) is not str:
            return None
        return replace(kept, boot=str(kept.boot), starts=tuple(map(float, kept.starts)))
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def write_kept(data: Path, kept: Kept) -> None:
    """Replace that note, as `write_trial`. May raise `OSError`."""
    _write(kept_path(data), json.dumps(asdict(kept)).encode() + b"\n")


def trial_path(data: Path) -> Path:
    """Return where the note lies."""
    return data / "agent" / "trial.json"


def read_trial(data: Path) -> Trial | None:
    """Return the note, None if there is none; what a later agent added is passed over. Raises
    `BadTrial`."""
    try:
        found = json.loads(trial_path(data).read_bytes())
        known = {f.name: found[f.name] for f in fields(Trial) if f.name in found}
        trial = Trial(**known)
        if type(trial.failed) is not str or not all(map(_plain, (trial.folder, trial.back))):
            raise TypeError
        if min(trial.within_s, trial.starts, trial.number) < 0:
            raise ValueError
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, AttributeError) as e:
        raise BadTrial(f"the note of its trial, {trial_path(data)}, cannot be read") from e
    return trial


def _plain(name: object) -> bool:
    """Say whether this could be a folder's name, and no way to another one."""
    return isinstance(name, str) and name not in ("", ".", "..") and "/" not in name


def write_trial(data: Path, trial: Trial) -> None:
    """Replace the note; when this returns, no power cut undoes it. May raise `OSError`."""
    _write(trial_path(data), trial.to_bytes())


def _write(path: Path, words: bytes) -> None:
    path.parent.mkdir(mode=0o755, exist_ok=True)
    aside = path.with_name(f".{path.name}.launch")
    with open(aside, "wb") as file:
        file.write(words)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def named(data: Path, link: str) -> str:
    """Return the version's folder that `current` or `previous` names, `INSTALLED` without it."""
    try:
        return os.readlink(data / "models" / MODEL / link).rpartition("/")[2]
    except OSError:
        return INSTALLED


def program_of(data: Path, name: str, installed: Sequence[str]) -> list[str] | None:
    """Return the command of what is called `name`; None if it is not there."""
    if name == INSTALLED:
        return list(installed)
    model = data / "models" / MODEL
    python = model / "programs" / name / "bin" / "python"
    if os.access(python, os.X_OK):
        return [str(python), "-I", "-u", "-m", "pilotwave_agent.cli"]
    try:
        entrypoint = json.loads((model / "about" / f"{name}.json").read_bytes())["entrypoint"]
        program = model / "versions" / name / entrypoint
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return [str(program)] if os.access(program, os.X_OK) else None


def choose(data: Path) -> tuple[str, str]:
    """Return what to start, and why it is another than `current` names (empty if it is that). A
    trial's start is counted, on disk, before this returns."""
    current = named(data, "current")
    try:
        trial = read_trial(data)
    except BadTrial as e:
        return named(data, "previous"), str(e)
    if trial is None or trial.folder != current:
        return _choose_kept(data, current)
    if not trial.failed and trial.starts >= MOST_STARTS:
        proved = "ended each time" if trial.taken else "proved nothing"
        trial = _failed(data, trial, f"it was started {trial.starts} times and {proved}")
    if trial.failed:
        return trial.back, trial.failed
    try:
        write_trial(data, replace(trial, starts=trial.starts + 1))
    except OSError as e:
        return trial.back, f"its start cannot be counted: {e.strerror}"
    return current, ""


def _choose_kept(data: Path, current: str) -> tuple[str, str]:
    kept = read_kept(data)
    if kept is None or current in (INSTALLED, kept.back) or kept.folder != current:
        return current, ""
    if not kept.failed:
        kept = _counted(kept, _boot(), time.clock_gettime(time.CLOCK_BOOTTIME))
        try:
            write_kept(data, kept)
        except OSError:
            return current, ""  # it has proved itself: it need not be counted
    return (kept.back, kept.failed) if kept.failed else (current, "")


def _counted(kept: Kept, boot: str, now: float) -> Kept:
    """Count a start; too many of them within the time are the version's failure."""
    known = kept.starts if kept.boot == boot else ()
    starts = tuple(at for at in known if now - ENDS_WITHIN_S < at <= now)
    if len(starts) >= MOST_ENDS:
        why = f"it ended {len(starts)} times within {ENDS_WITHIN_S / 60:g} minutes"
        return replace(kept, failed=why)
    return replace(kept, boot=boot, starts=(*starts, now))


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return "unknown"


def _failed(data: Path, trial: Trial, why: str) -> Trial:
    """Note why a version will not be started again; a disk that says no forgets it."""
    trial = replace(trial, failed=why)
    try:
        write_trial(data, trial)
    except OSError as e:
        say(f"{trial.folder}: {why}; that cannot be noted: {e.strerror}")
    return trial


def candidates(data: Path, name: str) -> Iterator[str]:
    """Yield what to start, best first: what is wanted, what may run instead of it (what ran before
    it, where nobody noted that), what was installed."""
    kept = read_kept(data)
    known = kept is not None and kept.folder == named(data, "current")
    behind = kept.back if kept is not None and known else named(data, "previous")
    yield from dict.fromkeys([name, behind, INSTALLED])


def launch(data: Path, installed: Sequence[str], words: Sequence[str]) -> NoReturn:
    """Become the agent. Raises `OSError` if not even the installed one can be started."""
    wanted = named(data, "current")
    name, why = choose(data)
    for slot in candidates(data, name):
        command = program_of(data, slot, installed)
        problem = "its program is not there"
        if command is not None:
            if why:
                say(f"{wanted} is not started, {why}; {slot} is")
            if slot == wanted:
                guard(data, slot)
            try:
                os.execve(command[0], [*command, *words], _environment(data, wanted, slot))
            except OSError as e:
                problem = f"it cannot be started: {e.strerror}"
        why = why or problem
        _pass_over(data, slot, problem)
    raise OSError(f"{installed[0]}: the installed agent cannot be started")


def _pass_over(data: Path, slot: str, problem: str) -> None:
    try:
        trial = read_trial(data)
    except BadTrial:
        return
    if trial is not None and trial.folder == slot and not trial.failed:
        _failed(data, trial, problem)


def _environment(data: Path, wanted: str, slot: str) -> dict[str, str]:
    mine = {SLOT: slot, DATA: str(data), PYTHON: sys.executable}
    others = {k: v for k, v in os.environ.items() if k != PASSED_OVER}
    return {**others, **mine, **({PASSED_OVER: wanted} if slot != wanted else {})}


def guard(data: Path, name: str) -> None:
    """If `name` is on trial, leave a process behind that ends this one when its time is over."""
    try:
        trial = read_trial(data)
        if trial is None or trial.folder != name or trial.taken:
            return
        watched = os.pidfd_open(os.getpid())  # a kernel before 5.3 has none: systemd still counts
    except (BadTrial, AttributeError, OSError):
        return
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        os.close(watched)
        return
    if os.fork():  # nobody has to wait for what this one leaves behind
        os._exit(0)
    try:
        _watch(data, name, watched, PATIENCE * trial.within_s)
    finally:
        os._exit(0)


def _watch(data: Path, name: str, watched: int, patience_s: float) -> None:
    ended = select.poll()
    ended.register(watched, select.POLLIN)
    if ended.poll(min(patience_s * 1000, 2**31 - 1)):
        return
    trial = read_trial(data)
    if trial is None or trial.folder != name or trial.taken or trial.failed:
        return
    _failed(data, trial, f"it ran for {patience_s:g} s and proved nothing; it was ended")
    signal.pidfd_send_signal(watched, signal.SIGKILL)


def say(words: str) -> None:
    """Tell people, in the system's log."""
    sys.stderr.write(f"pilotwave-agent: {words}\n")


def main(argv: Sequence[str]) -> NoReturn:
    """Start what is to run, as told on the command line."""
    if "--" not in argv or argv.index("--") < 2:
        sys.exit("launch.py: expected DATA PROGRAM … -- WORDS …, as the service's unit has them")
    at = list(argv).index("--")
    try:
        launch(Path(argv[0]), argv[1:at], argv[at + 1 :])
    except OSError as e:
        sys.exit(f"pilotwave-agent: {e}")


if __name__ == "__main__":
    main(sys.argv[1:])
