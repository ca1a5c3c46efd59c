"""The states of a model on a device, and the words for every "no".

The table of allowed transitions is the whole truth: the agent's machine and its tests read it.
"""

from __future__ import annotations

from enum import Enum
from types import MappingProxyType


class _Word(str, Enum):
    """A string enum that prints as its value on every Python from 3.10 on."""

    def __str__(self) -> str:
        return str(self.value)


class ModelState(_Word):
    """Where one model stands on one device (DESIGN section 8)."""

    IDLE = "idle"
    FETCHING = "fetching"
    VERIFYING = "verifying"
    STAGED = "staged"
    TESTING = "testing"
    SHADOWING = "shadowing"
    SWITCHING = "switching"
    PROBATION = "probation"
    HEALTHY = "healthy"
    ROLLING_BACK = "rolling_back"
    ROLLED_BACK = "rolled_back"
    FAILED = "failed"


_S = ModelState
_RESTING = (_S.IDLE, _S.HEALTHY, _S.ROLLED_BACK, _S.FAILED)

# A new order may arrive at any time before the switch, so each of those states may go back to
# FETCHING; after the switch it waits for probation to end or for the way back. A candidate in
# shadow has passed its test; where it is ordered in earnest, it is TESTING again and switches.
TRANSITIONS = MappingProxyType(
    {
        _S.IDLE: frozenset({_S.FETCHING, _S.ROLLING_BACK, _S.FAILED}),
        _S.FETCHING: frozenset({_S.FETCHING, _S.VERIFYING, _S.FAILED, *_RESTING}),
        _S.VERIFYING: frozenset({_S.FETCHING, _S.STAGED, _S.FAILED, *_RESTING}),
        _S.STAGED: frozenset({_S.FETCHING, _S.TESTING, _S.FAILED, *_RESTING}),
        _S.TESTING: frozenset({_S.FETCHING, _S.SHADOWING, _S.SWITCHING, _S.FAILED, *_RESTING}),
        _S.SHADOWING: frozenset({_S.FETCHING, _S.TESTING, _S.FAILED, *_RESTING}),
        _S.SWITCHING: frozenset({_S.PROBATION, _S.ROLLING_BACK, _S.FAILED}),
        _S.PROBATION: frozenset({_S.HEALTHY, _S.ROLLING_BACK, _S.FETCHING}),
        _S.HEALTHY: frozenset({_S.FETCHING, _S.ROLLING_BACK, _S.FAILED, _S.IDLE}),
        _S.ROLLING_BACK: frozenset({_S.ROLLED_BACK, _S.FAILED}),
        _S.ROLLED_BACK: frozenset({_S.FETCHING, _S.ROLLING_BACK, _S.FAILED, _S.HEALTHY}),
        _S.FAILED: frozenset({_S.FETCHING, _S.ROLLING_BACK, _S.HEALTHY, _S.IDLE}),
    }
)


def may_follow(before: ModelState, after: ModelState) -> bool:
    """Say whether the table allows the step from `before` to `after`."""
    return after in TRANSITIONS[before]


class Reason(_Word):
    """Why a device (or the server, to a device) says no. Stable: operators match on these."""

    # the directive
    DIRECTIVE_TOO_LARGE = "directive_too_large"
    BAD_ENVELOPE = "bad_envelope"
    WRONG_KEY = "wrong_key"
    BAD_DIRECTIVE = "bad_directive"
    WRONG_FLEET = "wrong_fleet"
    WRONG_DEVICE = "wrong_device"
    NOT_YET_VALID = "not_yet_valid"
    DIRECTIVE_EXPIRED = "directive_expired"
    DIRECTIVE_REPLAYED = "directive_replayed"
    DIRECTIVE_FORK = "directive_fork"
    SNAPSHOT_TOO_OLD = "snapshot_too_old"
    # TUF metadata
    METADATA_EXPIRED = "metadata_expired"
    METADATA_ROLLBACK = "metadata_rollback"
    METADATA_MISMATCH = "metadata_mismatch"
    METADATA_UNSIGNED = "metadata_unsigned"
    METADATA_INVALID = "metadata_invalid"
    METADATA_UNAVAILABLE = "metadata_unavailable"
    SLOW_RETRIEVAL = "slow_retrieval"
    ENDLESS_DATA = "endless_data"
    # the version
    TARGET_UNKNOWN = "target_unknown"
    TARGET_MISMATCH = "target_mismatch"
    MANIFEST_INVALID = "manifest_invalid"
    VARIANT_UNKNOWN = "variant_unknown"
    DOES_NOT_FIT = "does_not_fit"
    RUNTIME_MISSING = "runtime_missing"
    UNSAFE_FORMAT = "unsafe_format"
    YANKED = "yanked"
    DENIED = "denied"
    QUARANTINED = "quarantined"
    BELOW_FLOOR = "below_floor"
    # its bytes
    BLOB_MISSING = "blob_missing"
    BLOB_MISMATCH = "blob_mismatch"
    BLOB_TRUNCATED = "blob_truncated"
    BLOB_TOO_LONG = "blob_too_long"
    BLOB_DENIED = "blob_denied"
    BLOB_UNAVAILABLE = "blob_unavailable"
    DISK_FULL = "disk_full"
    DISK_READONLY = "disk_readonly"
    OVER_BUDGET = "over_budget"
    # its self-test
    SELFTEST_FORMAT = "selftest_format"
    SELFTEST_LOAD = "selftest_load"
    SELFTEST_OPERATOR = "selftest_operator"
    SELFTEST_UNSUPPORTED = "selftest_unsupported"
    SELFTEST_SCHEMA = "selftest_schema"
    SELFTEST_MISMATCH = "selftest_mismatch"
    SELFTEST_AGREEMENT = "selftest_agreement"
    SELFTEST_NONFINITE = "selftest_nonfinite"
    SELFTEST_SLOW = "selftest_slow"
    SELFTEST_TIMEOUT = "selftest_timeout"
    SELFTEST_CRASH = "selftest_crash"
    SELFTEST_SEGFAULT = "selftest_segfault"
    SELFTEST_MEMORY = "selftest_memory"
    SELFTEST_ERROR = "selftest_error"
    # what an order waits for (conditions and windows)
    WAITING_POWER = "waiting_power"
    WAITING_BATTERY = "waiting_battery"
    WAITING_NETWORK = "waiting_network"
    WAITING_DISK = "waiting_disk"
    WAITING_IDLE = "waiting_idle"
    WAITING_WINDOW = "waiting_window"
    WAITING_CONDITION = "waiting_condition"
    WAITING_TOGETHER = "waiting_together"
    # its life after the switch
    APP_REFUSED = "app_refused"
    APP_SILENT = "app_silent"
    PROBE_FAILED = "probe_failed"
    PROBE_TIMEOUT = "probe_timeout"
    OPERATOR_ROLLBACK = "operator_rollback"
    LOCAL_ROLLBACK = "local_rollback"
    TOGETHER_ROLLBACK = "together_rollback"
    FAILED_HERE_BEFORE = "failed_here_before"
    INTERNAL = "internal"
