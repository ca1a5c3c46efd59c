"""Every route that may write: who asks before it is called, or why nobody has to.

An API cannot ask. So each of its routes that cannot be undone, or concerns a fleet, names the
command and the page's act that ask: `asked by COMMAND`.
"""

from __future__ import annotations

# asked on the page: tests/server/dashboard/test_asking_first.py tries each
PAGE_ASKS = """
    POST /rollouts/new: where the version was rolled back before
    POST /rollouts/{rollout}/approve: where the version was rolled back before
    POST /rollouts/{rollout}/resume: where the version was rolled back before
    POST /rollouts/{rollout}/start: where the version was rolled back before
    POST /rollouts/{rollout}/abort: always
    POST /rollouts/{rollout}/next: always
    POST /rollouts/{rollout}/rollback: always, with a reason
    POST /learning/{experiment}/end: always; tests/server/dashboard/test_learning_page.py
    POST /learning/{experiment}/stop: always; tests/server/dashboard/test_learning_page.py
    POST /devices/{device}/do/decommission: always
    POST /devices/{device}/do/reject: always
    POST /devices/{device}/do/revoke: always
    POST /devices/bulk: always; tests/server/dashboard/test_many_devices.py
    POST /models/{model}/{version}/deny: always
    POST /models/{model}/{version}/purge: always
    POST /groups/{group}/assign: always
    POST /groups/{group}/change: where the selector changes
    POST /groups/{group}/delete: always
    POST /groups/{group}/wipe: a box beside the count has to be ticked
    POST /settings/people/totp-off: always
    POST /settings/people/unbind: always
    POST /settings/tokens/revoke: always
    POST /settings/codes/revoke: always
    POST /settings/webhooks/delete: always
"""
PAGE_CAN_BE_UNDONE = """
    POST /login/link/{secret}/oidc: it signs one person in
    POST /login/link/{secret}: it signs one person in
    POST /login: it signs one person in
    POST /login/code: it signs one person in
    POST /logout: sign in again
    POST /language: choose the other one
    POST /theme: choose the other one
    POST /account/password: choose another; it wants the present one
    POST /account/totp-off: totp-on; it wants the password
    POST /account/totp-on: totp-off
    POST /rollouts/preview: it changes nothing
    POST /rollouts/{rollout}/pause: resume
    POST /rollouts/{rollout}/retry: devices that fail again go back by themselves
    POST /devices/{device}/do/accept: revoke
    POST /devices/{device}/do/settle: the conflict is shown again as soon as there is one
    POST /devices/{device}/labels: set them back; it is one device
    POST /devices/{device}/models/{model}/pin: unpin; it is one device, and wants a reason
    POST /devices/{device}/models/{model}/retry: it is one device, which may fail again
    POST /devices/{device}/models/{model}/rollback: unpin; it is one device, and wants a reason
    POST /devices/{device}/models/{model}/unpin: pin; it is one device
    POST /models/{model}/{version}/undeny: deny
    POST /groups: delete
    POST /attention/{verb}: acknowledge and withdraw undo each other
    POST /groups/{group}/add: remove; it is one device
    POST /groups/{group}/remove: add; it is one device
    POST /groups/{group}/unassign: assign; its devices keep what they run
    POST /learning/{experiment}/pause: resume
    POST /learning/{experiment}/resume: pause
    POST /policies/new: the version before is kept
    POST /settings/people/enable: disable
    POST /settings/people/bind: unbind
    POST /settings/people/role: choose the other role
    POST /settings/people/disable: enable
    POST /settings/people/link: a link that nobody used ends by itself
    POST /settings/people/add: disable
    POST /settings/tokens/add: revoke
    POST /settings/codes/add: revoke
    POST /settings/webhooks/add: delete
    POST /settings/webhooks/enable: disable
    POST /settings/webhooks/disable: enable
    POST /settings/webhooks/test: it sends one message that says it is a test
"""
API = """
    POST /api/v1/tokens: revoke it
    DELETE /api/v1/captures: asked by captures delete
    DELETE /api/v1/tokens/{token_id}: asked by tokens revoke
    POST /api/v1/people: disable it
    PATCH /api/v1/people/{person}: change it back; the page asks before it takes the second factor
    POST /api/v1/people/{person}/link: a link that nobody used ends by itself
    PUT /api/v1/people/{person}/oidc: unbind
    DELETE /api/v1/people/{person}/oidc: asked by people unbind
    POST /api/v1/blobs/missing: it changes nothing
    PATCH /api/v1/blobs/{sha256}/upload: bytes that no version names are not offered to anybody
    POST /api/v1/models/{model}/metadata: asked by publish, versions yank and versions floor
    POST /api/v1/models/{model}/versions/{version}/deny: asked by versions deny
    POST /api/v1/models/{model}/versions/{version}/purge: asked by versions purge
    POST /api/v1/models/{model}/versions/{version}/readmit: versions purge bars them again
    DELETE /api/v1/blobs/{sha256}: no version lists it; upload it again
    DELETE /api/v1/models/{model}/versions/{version}/deny: deny it again
    POST /api/v1/trust/bootstrap: taken once, from a fleet that has no root yet
    POST /api/v1/trust/root: asked by keys rotate
    POST /api/v1/trust/targets: asked by models reset
    POST /api/v1/trust/online-key: asked by keys rotate
    POST /api/v1/trust/director-key: asked by keys rotate
    POST /device/v1/enrol: a device's; decommission it
    POST /device/v1/check-in: a device's report
    PATCH /api/v1/devices/{device}: set the labels back; it is one device
    POST /api/v1/devices/bulk: asked by devices label, devices accept and devices decommission
    POST /api/v1/devices/{device}/accept: revoke it
    POST /api/v1/devices/{device}/reject: asked by devices reject
    POST /api/v1/devices/{device}/revoke: asked by devices revoke
    POST /api/v1/devices/{device}/settle: the conflict is shown again as soon as there is one
    POST /api/v1/devices/{device}/decommission: asked by devices decommission
    POST /api/v1/devices/{device}/diagnostics: the device tells only whom its owner named
    DELETE /api/v1/devices/{device}/diagnostics/{number}: ask again
    POST /device/v1/captures: a device sends what its owner wants sent
    POST /device/v1/declines: a device says that it takes no part
    POST /device/v1/updates: a device sends what its owner allows and the publisher has signed
    POST /device/v1/masked: a device sends what its owner allows and the publisher has signed
    POST /device/v1/updates/begin: part of sending an update
    POST /device/v1/updates/pieces: part of sending an update
    POST /api/v1/learning/experiments: stop it; only devices whose owners allow it take part
    POST /api/v1/learning/experiments/{experiment}/end: asked by learn end
    POST /api/v1/learning/experiments/{experiment}/pause: resume it
    POST /api/v1/learning/experiments/{experiment}/resume: pause it
    POST /api/v1/learning/experiments/{experiment}/stop: asked by learn stop
    POST /device/v1/diagnostics: a device answers what it was asked
    POST /api/v1/enrolment-codes: delete them
    DELETE /api/v1/enrolment-codes/{code_id}: asked by codes delete
    POST /api/v1/groups: delete it
    POST /api/v1/attention/acknowledge: withdraw it
    POST /api/v1/attention/withdraw: acknowledge it
    PUT /api/v1/groups/{group}: change it back; the page asks before another selector
    DELETE /api/v1/groups/{group}: asked by groups delete
    PUT /api/v1/groups/{group}/members/{device}: take it off; it is one device
    DELETE /api/v1/groups/{group}/members/{device}: put it back; it is one device
    PUT /api/v1/groups/{group}/baselines/{model}: asked by assign
    DELETE /api/v1/groups/{group}/baselines/{model}: assign again; its devices keep what they run
    POST /api/v1/devices/{device}/models/{model}/pin: unpin; it is one device
    POST /api/v1/devices/{device}/models/{model}/rollback: unpin; it is one device
    DELETE /api/v1/devices/{device}/models/{model}/pin: pin it again; it is one device
    POST /api/v1/devices/{device}/models/{model}/retry: it is one device, which may fail again
    POST /api/v1/rollouts: asked by rollouts create
    POST /api/v1/rollouts/preview: it changes nothing
    POST /api/v1/rollouts/{rollout}/approve: asked by rollouts approve
    POST /api/v1/rollouts/{rollout}/start: asked by rollouts start
    POST /api/v1/rollouts/{rollout}/pause: resume it
    POST /api/v1/rollouts/{rollout}/resume: asked by rollouts resume
    POST /api/v1/rollouts/{rollout}/next: asked by rollouts next
    POST /api/v1/rollouts/{rollout}/abort: asked by rollouts abort
    POST /api/v1/rollouts/{rollout}/rollback: asked by rollouts rollback
    POST /api/v1/rollouts/{rollout}/retry: devices that fail again go back by themselves
    PUT /api/v1/groups/{group}/baselines/{model}/removal: asked by unassign
    DELETE /api/v1/groups/{group}/baselines/{model}/removal: ask for the removal again
    PUT /api/v1/devices/{device}/models/{model}/removal: asked by devices remove
    DELETE /api/v1/devices/{device}/models/{model}/removal: ask for the removal again
    POST /api/v1/policies/check: it changes nothing
    PUT /api/v1/policies/{policy}: the version before is kept
    POST /api/v1/webhooks: delete it
    PATCH /api/v1/webhooks/{webhook}: change it back
    DELETE /api/v1/webhooks/{webhook}: asked by webhooks delete
    POST /api/v1/webhooks/{webhook}/secret: the secret before signs as well until the next change
    POST /api/v1/webhooks/{webhook}/test: it sends one message that says it is a test
    POST /api/v1/webhooks/{webhook}/deliveries/{number}/again: receivers know a delivery by its id
    POST /api/v1/deltas/{from_sha256}/{to_sha256}/again: it makes what can be made anew
    PUT /api/v1/site-limits: set them back
"""
