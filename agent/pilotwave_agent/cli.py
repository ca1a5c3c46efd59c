"""`pilotwave-agent`: enrol, run, once, status, rollback, overlay, captures, learn, selftest…

Exit statuses: 0 done · 1 the server, the network or a version said no · 2 a wrong option or setting
· 3 not enrolled · 4 another agent runs on this data folder · 5 `run` ends because another version
of the agent is to run: start it again. Every error is one line that says what to do.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from pilotwave_agent.host.lock import Held
from pilotwave_agent.identity import ENROL, BadIdentity, NotEnrolled
from pilotwave_agent.permissions import BadCustody, check_settings
from pilotwave_agent.settings.config import BadConfig, Config, load
from pilotwave_protocol.errors import PilotwaveError

CONFIG_NAME = "agent.toml"


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command; ends the process with its status."""
    sys.exit(run_command(argv))


def run_command(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    arguments = parser().parse_args(argv)
    try:
        return int(arguments.command(arguments))
    except PilotwaveError as e:
        return _fail(str(e), _status_of(e))
    except OSError as e:
        where = f"{e.filename}: " if e.filename else ""
        return _fail(f"{where}{e.strerror or e}", 1)


def _status_of(e: PilotwaveError) -> int:
    if isinstance(e, (BadConfig, BadIdentity, BadCustody)):
        return 2
    if isinstance(e, NotEnrolled):
        return 3
    return 4 if isinstance(e, Held) else 1


def _fail(words: str, status: int) -> int:
    sys.stderr.write(f"pilotwave-agent: {words}\n")
    return status


class _SayVersion(argparse.Action):
    """Print the version; what reads it is imported only when somebody asks."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from pilotwave_agent.facts import agent_version

        sys.stdout.write(f"pilotwave-agent {agent_version()}\n")
        parser.exit()


def parser() -> argparse.ArgumentParser:
    """Return the command line's grammar."""
    top = argparse.ArgumentParser(
        prog="pilotwave-agent", description="Keep this device on the model versions it is assigned."
    )
    top.add_argument("--version", action=_SayVersion, nargs=0, help="show the version and exit")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    enrol = _command(commands, "enrol", _enrol, "join a fleet: make a key, pin the fleet's root")
    enrol.add_argument("--server", required=True, metavar="URL", help="where the registry is")
    enrol.add_argument("--name", required=True, help="this device's name: cam-017")
    enrol.add_argument("--code", help="one-time code; without it an operator must accept")
    root = enrol.add_mutually_exclusive_group(required=True)
    root.add_argument("--root", type=Path, metavar="FILE", help="the fleet's root.json")
    root.add_argument("--root-sha256", metavar="HEX", help="digest of the fleet's first root.json")
    enrol.add_argument("--ca-file", type=Path, metavar="PEM", help="trust these roots for TLS only")
    enrol.add_argument(
        "--client-cert", type=Path, metavar="PEM", help="certificate to show to a server that asks"
    )
    enrol.add_argument(
        "--client-key", type=Path, metavar="PEM", help="its key, where it is in another file"
    )
    enrol.add_argument(
        "--proxy", metavar="URL", help="forward proxy, or `environment` for http_proxy and its kin"
    )
    enrol.add_argument("--wait", action="store_true", help="wait until an operator has accepted")
    enrol.add_argument(
        "--new-identity", action="store_true", help="make a new key: this folder was copied"
    )
    _command(commands, "run", _run, "poll, install and report until stopped")
    _command(commands, "once", _once, "poll, install and report once, then exit")
    status = _command(commands, "status", _status, "show what this device runs, and why")
    status.add_argument("--json", action="store_true", help="for scripts")
    back = _command(commands, "rollback", _rollback, "roll back to the previous version at once")
    back.add_argument("--model", required=True, help="which model")
    words = "take back what this device adds to a model's scores"
    overlay = _command(commands, "overlay", _overlay, words)
    overlay.add_argument("what", choices=("drop",), help="what to do with it")
    overlay.add_argument("model", help="which model's")
    words = "show the captured cases that wait, or remove them before they are sent"
    cases = _command(commands, "captures", _captures, words)
    cases.add_argument("what", choices=("list", "forget"), help="what to do with them")
    cases.add_argument("--id", nargs="+", default=[], help="which to forget, as `list` shows them")
    cases.add_argument("--all", action="store_true", help="forget all that wait")
    cases.add_argument("--json", action="store_true", help="for scripts")
    words = "remove the labelled examples that are kept of a model"
    learn = _command(commands, "learn", _learn, words)
    learn.add_argument("what", choices=("forget",), help="what to do")
    learn.add_argument("model", metavar="MODEL", help="which model's")
    service = _command(commands, "install", _install, "install and start the systemd service")
    service.add_argument("--user", default="pilotwave", help="whom it runs as; made if missing")
    service.add_argument("--no-start", action="store_true", help="do not start it yet")
    service.add_argument("--print", action="store_true", help="show the unit, change nothing")
    words = "run the self-test of a version's files; reads the manifest from stdin"
    desk = commands.add_parser(
        "selftest", help=words, description=f"{words.capitalize()}. Without FOLDER, test the agent."
    )
    where = "where the variant's files are"
    desk.add_argument("folder", type=Path, nargs="?", metavar="FOLDER", help=where)
    desk.add_argument("--variant", default="", metavar="NAME", help="which of the manifest's")
    desk.add_argument("--timeout", type=float, default=60, metavar="S", help="seconds at most")
    desk.set_defaults(command=_selftest)
    words = "write golden cases for a version's files; reads the manifest from stdin"
    golden = commands.add_parser("golden", help=words, description=words.capitalize() + ".")
    golden.add_argument("folder", type=Path, metavar="FOLDER", help="where the variant's files are")
    golden.add_argument("--variant", required=True, metavar="NAME", help="which of the manifest's")
    golden.add_argument("--inputs", type=Path, required=True, metavar="FILE", help=".npz, .npy …")
    golden.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to write")
    golden.add_argument("--most", type=int, default=64, metavar="N", help="cases at most")
    golden.add_argument("--timeout", type=float, default=60, metavar="S", help="seconds at most")
    golden.set_defaults(command=_golden)
    gone = commands.add_parser("uninstall", help="stop and remove the systemd service")
    gone.add_argument("--purge", type=Path, metavar="DIR", help="remove this data folder as well")
    gone.set_defaults(command=_uninstall)
    for command in (service, gone):
        command.add_argument(
            "--root", type=Path, default=Path("/"), metavar="DIR", help="an image being made"
        )
    return top


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    function: object,
    words: str,
) -> argparse.ArgumentParser:
    made = commands.add_parser(name, help=words, description=words.capitalize() + ".")
    place = made.add_mutually_exclusive_group(required=True)
    place.add_argument("--config", type=Path, metavar="FILE", help="the settings file")
    place.add_argument("--data", type=Path, metavar="DIR", help=f"data folder with {CONFIG_NAME}")
    made.set_defaults(command=function)
    return made


def config_path(arguments: argparse.Namespace) -> Path:
    """Return where the settings are."""
    path: Path = arguments.config or arguments.data / CONFIG_NAME
    return path.absolute()


def _settings(arguments: argparse.Namespace) -> tuple[Config, Path]:
    path = config_path(arguments)
    if arguments.data and not path.exists():
        raise NotEnrolled(f"{path}: no such file; run {ENROL} first")
    check_settings(path)
    return load(path), path


# Each command imports what it needs: `run` stays small that way.
def _enrol(arguments: argparse.Namespace) -> int:
    from pilotwave_agent.commands.enrol import EnrolOptions, enrol

    data_dir = arguments.data.absolute() if arguments.data else None
    wish = EnrolOptions(
        server=arguments.server,
        name=arguments.name,
        code=arguments.code,
        root_file=arguments.root,
        root_sha256=arguments.root_sha256,
        ca_file=_absolute(arguments.ca_file),
        client_cert=_absolute(arguments.client_cert),
        client_key=_absolute(arguments.client_key),
        proxy=arguments.proxy,
        wait=arguments.wait,
        new_identity=arguments.new_identity,
    )
    return _tell(enrol(wish, config_path(arguments), data_dir))


def _absolute(path: Path | None) -> Path | None:
    return path.absolute() if path else None


def _run(arguments: argparse.Namespace) -> int:
    from pilotwave_agent.resident.run import RESTART, run
    from pilotwave_agent.self_update import slots

    try:
        again = run(*_settings(arguments))
    except PilotwaveError:
        slots.ended_well()
        raise
    slots.ended_well()
    return RESTART if again else 0


def _once(arguments: argparse.Namespace) -> int:
    from pilotwave_agent.commands.once import once

    settings, path = _settings(arguments)
    trouble = once(settings, path)
    return _fail(trouble, 1) if trouble else 0


def _status(arguments: argparse.Namespace) -> int:
    from pilotwave_agent.commands.status import lines_of, status

    settings, _ = _settings(arguments)
    found = status(settings)
    text = json.dumps(found, indent=2) if arguments.json else "\n".join(lines_of(found))
    sys.stdout.write(text + "\n")
    return 0


def _rollback(arguments: argparse.Namespace) -> int:
    from pilotwave_agent.commands.rollback import rollback

    settings, _ = _settings(arguments)
    sys.stdout.write(rollback(settings, arguments.model) + "\n")
    return 0


def _overlay(arguments: argparse.Namespace) -> int:
    from pilotwave_agent.commands.overlay import drop_overlay

    settings, _ = _settings(arguments)
    return _tell([drop_overlay(settings, arguments.model)])


def _captures(arguments: argparse.Namespace) -> int:
    from pilotwave_agent.commands.captures import forget_cases, list_cases

    settings, _ = _settings(arguments)
    if arguments.what == "forget":
        return _tell([forget_cases(settings, arguments.id, all_of_them=arguments.all)])
    return _tell(list_cases(settings, as_json=arguments.json))


def _learn(arguments: argparse.Namespace) -> int:
    from pilotwave_agent.commands.learn import forget

    settings, _ = _settings(arguments)
    return _tell([forget(settings, arguments.model)])


def _selftest(arguments: argparse.Namespace) -> int:
    from pilotwave_agent.commands.selftest import try_files, try_itself
    from pilotwave_protocol.manifest import MAX_MANIFEST_BYTES

    if arguments.folder is None:
        return _tell([try_itself()])

    raw = sys.stdin.buffer.read(MAX_MANIFEST_BYTES + 1)
    said = try_files(raw, arguments.variant, arguments.folder, arguments.timeout)
    return _tell([said])


def _golden(arguments: argparse.Namespace) -> int:
    from pilotwave_agent.commands.selftest import write_golden
    from pilotwave_protocol.manifest import MAX_MANIFEST_BYTES

    said = write_golden(
        sys.stdin.buffer.read(MAX_MANIFEST_BYTES + 1),
        arguments.variant,
        arguments.folder,
        arguments.inputs,
        arguments.out,
        most=arguments.most,
        timeout_s=arguments.timeout,
    )
    return _tell([said])


def _install(arguments: argparse.Namespace) -> int:
    from pilotwave_agent.commands.service import install, own_command, planned
    from pilotwave_systemd.install import System

    path, user = config_path(arguments), arguments.user
    system, command = System.at(arguments.root.absolute()), own_command()
    if arguments.print:
        sys.stdout.write(planned(system, path, user=user, command=command))
        return 0
    start = not arguments.no_start
    return _tell(install(system, path, user=user, command=command, start=start))


def _uninstall(arguments: argparse.Namespace) -> int:
    from pilotwave_agent.commands.service import uninstall
    from pilotwave_systemd.install import System

    return _tell(uninstall(System.at(arguments.root.absolute()), purge=arguments.purge))


def _tell(lines: Iterable[str]) -> int:
    for line in lines:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    main()
