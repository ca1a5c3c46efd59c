"""Names of files and folders that hold secrets on people's machines."""

from __future__ import annotations

import re

_FOLDERS = frozenset(
    {".git", ".ssh", ".aws", ".gnupg", ".kube", ".docker", ".azure", ".gcloud", ".svn", ".hg"}
)
_FILES = re.compile(
    r"\.env(?:[.\-_].*|rc)?|.+\.env|id_(?:rsa|dsa|ecdsa|ed25519|xmss)(?:_sk)?(?:[.\-_](?!pub$).*)?"
    r"|[._]netrc|\.pypirc|\.npmrc|\.yarnrc(?:\.yml)?|\.pgpass|\.my\.cnf|\.htpasswd"
    r"|\.git-credentials|\.dockercfg|\.boto|\.s3cfg|\.vault-token|kubeconfig"
    r"|(?:.+_)?credentials(?:\.(?:json|ya?ml|toml|ini|csv|db))?|client_secrets?(?:[.\-_].*)?\.json"
    r"|service[_-]?account(?:[.\-_].*)?\.json|secrets?\.(?:json|ya?ml|toml|ini)"
    r"|.+\.tfstate(?:\.backup)?|rclone\.conf|.+\.ovpn"
    r"|.+\.(?:p12|pfx|jks|jceks|keystore|bks|ppk|kdbx?|agekey)",
    re.IGNORECASE,
)


def secret_by_name(path: str) -> str | None:
    """Return the part of a path (with `/`) that names a secret, or None.

    What is shown as an example (`.env.example`) counts too: nobody loads it on a device.
    """
    *folders, name = [part for part in path.split("/") if part] or [""]
    folder = next((part for part in folders if part.lower() in _FOLDERS), None)
    if folder or name.lower() in _FOLDERS or _FILES.fullmatch(name):
        return folder or name
    return None
