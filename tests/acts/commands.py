"""Every command of the three programs: it asks first, or it says why it need not."""

from __future__ import annotations

# asked at a terminal, or of many devices (`--selector`): tests/cli/test_asking.py tries each
ASKS_SOMETIMES = """
    models create | assign | rollouts create | rollouts approve | rollouts start | rollouts resume
    rollouts abort | rollouts rollback
    devices label | devices accept | devices rollback | devices retry
"""
# these list what goes, and ask: tests/cli/test_publish.py, test_leaving.py, test_rotation.py …
LISTS_FIRST = """
    publish | keys rotate | unassign | devices remove | models reset | webhooks delete
    captures delete | learn end | learn stop
"""
READS = """
    status | bytes | events | follow | attention list
    keys show | models list | models show | versions list | versions show | devices list
    devices show | devices events | devices history | devices why | codes list | groups list
    groups show | policies list | policies show | policies check | rollouts list | rollouts show
    rollouts preview | rollouts devices | rollouts decisions | sites list | deltas list
    deltas show | tokens list | people list | webhooks list | webhooks deliveries | audit export
    audit verify
    captures list | learn status
    server check | server notices
    agent status | agent selftest
"""
CAN_BE_UNDONE = """
    login: it writes a file of this person's; log in again
    renew: it changes nothing but when roles expire
    simulate: its devices are virtual and of its own name
    keys init: it makes new files and overwrites none
    keys reference: it makes a new file
    keys reader: it makes a new file and overwrites none
    keys sign: a signature alone changes nothing; it shows the draft
    keys submit: the draft was shown to each who signed it; a further draft replaces it
    versions undeny: versions deny
    versions readmit: versions purge
    devices logs: it asks for what the device's owner allows, and shows it
    learn plan: learn drop
    learn drop: learn plan, under the same name with the same content
    learn start: learn stop; only devices whose owners allow it take part
    learn pause: learn resume
    learn resume: learn pause
    learn fetch: it makes a new file and overwrites none
    captures pull: it adds to the folder that it names, and keeps labels
    devices settle: the conflict is shown again as soon as there is one
    devices pin: devices unpin; it is one device
    devices unpin: devices pin; it is one device
    codes create: codes delete
    groups create: groups delete
    attention acknowledge: attention withdraw
    attention withdraw: attention acknowledge
    server gc: it lists with --dry-run, and removes only what the setting names
    golden: it writes the files that it names, which publish lists and checks
    reference: it writes the file that it names, which publish lists and checks
    optimize: it makes a new folder and overwrites none
    calibrate: it writes one file that it names, and may be run again
    agent overlay: it leaves the version as it is signed, and a new overlay comes of new labels
    agent learn: forget removes what its owner names, and more of the same kind comes
    agent captures: forget removes what its owner names, and more of the same kind comes
    agent golden: it writes into the folder that it is given
    groups add: groups remove; it is one device
    groups remove: groups add; it is one device
    policies save: the version before is kept
    rollouts pause: rollouts resume
    rollouts retry: devices that fail again go back by themselves, and the gates count them
    sites limit: sites limit
    deltas again: it makes what can be made anew
    tokens create: tokens revoke
    people create: the account can be disabled
    people link: a link that nobody used ends by itself
    people bind: people unbind
    webhooks create: webhooks delete
    webhooks change: webhooks change
    webhooks secret: the secret before signs as well until the next change
    webhooks test: it sends one message that says it is a test
    webhooks again: receivers know a delivery by its id
    server init: it sets up what is not there and may be repeated
    server run: it serves until it is stopped
    server migrate: tried both ways on copies by the tests; a backup comes before (docs)
    server backup: it reads, and makes a new folder
    server install: server uninstall
    server uninstall: server install; it removes no data
    server keys move: the keys stay the same; it says where they are now
    server keys encrypt: the keys stay the same, under another encryption key
    server keys new-token-key: devices check in once more for a token of the new key
    server new-token: pilotwave tokens revoke
    server login-link: a link that nobody used ends by itself
    server restore: it lifts numbers, which is how a fleet comes back; it says which
    agent enrol: pilotwave devices decommission
    agent run: it does what the server says
    agent once: it does what the server says
    agent rollback: the next order brings the version again
    agent install: agent uninstall
    agent uninstall: agent install; it removes data only from the folder named with --purge
"""


def listed(text: str) -> set[str]:
    """Return the names of a list as above."""
    return {name.strip() for line in text.splitlines() for name in line.split("|") if name.strip()}


def reasons(text: str) -> dict[str, str]:
    """Return name and reason of each line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return {name: reason.strip() for name, _, reason in (line.partition(": ") for line in lines)}
