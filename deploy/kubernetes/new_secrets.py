"""New secrets for a new cluster, as Kubernetes objects on stdout; the API key on stderr, once.

    python deploy/kubernetes/new_secrets.py | kubectl create -f -

`create` leaves secrets that are there as they are: other passwords would lock the stores against
everybody. It needs nothing but Python.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import sys

NAMESPACE = "elmyr"
OWNER = "admin"


def objects(api_key: str) -> list[dict[str, object]]:
    """Every Secret that the manifests name."""
    queue_password, gcs_password = secrets.token_hex(20), secrets.token_hex(20)
    access_key, secret_key = secrets.token_hex(10), secrets.token_hex(20)
    identity = {
        "name": NAMESPACE,
        "credentials": [{"accessKey": access_key, "secretKey": secret_key}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    data = {
        "elmyr": {
            "redis_url": f"redis://:{queue_password}@queue-redis:6379/0",
            "s3_access_key": access_key,
            "s3_secret_key": secret_key,
            "api_keys": f"{OWNER}:{hashlib.sha256(api_key.encode()).hexdigest()}",
        },
        "ray-token": {"auth_token": secrets.token_hex(32)},
        "queue-redis": {"password": queue_password},
        "gcs-redis": {"password": gcs_password},
        "s3-server": {"s3.json": json.dumps({"identities": [identity]})},
    }
    return [secret(name, values) for name, values in data.items()]


def secret(name: str, values: dict[str, str]) -> dict[str, object]:
    """One Secret."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in values.items()},
    }


def main() -> None:
    api_key = f"elm_{secrets.token_urlsafe(32)}"
    items = objects(api_key)
    sys.stdout.write(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}, indent=1))
    sys.stderr.write(f"the API key of {OWNER}, shown only here: {api_key}\n")


if __name__ == "__main__":
    main()
