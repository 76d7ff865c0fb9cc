"""New secrets for a new system of containers, as files in `secrets/`; the API key is in `api_key`.

    python3 deploy/docker/new_secrets.py [FOLDER]

Refuses a folder that is there: other passwords would lock the stores against everybody. Compose
mounts the files as they are, and containers of several users must read them: they are readable to
all, but only their owner gets into the folder. It needs nothing but Python.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import sys
from pathlib import Path

OWNER = "admin"


def values() -> dict[str, str]:
    """The content of each file, by its name."""
    api_key = f"elm_{secrets.token_urlsafe(32)}"
    redis_password = secrets.token_hex(20)
    access_key, secret_key = secrets.token_hex(10), secrets.token_hex(20)
    identity = {
        "name": "elmyr",
        "credentials": [{"accessKey": access_key, "secretKey": secret_key}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    return {
        "api_key": api_key,  # no container gets it
        "elmyr_api_keys": f"{OWNER}:{hashlib.sha256(api_key.encode()).hexdigest()}",
        "elmyr_redis_url": f"redis://:{redis_password}@redis:6379/0",
        "elmyr_s3_access_key": access_key,
        "elmyr_s3_secret_key": secret_key,
        "elmyr_ray_auth_token": secrets.token_hex(32),
        "redis_password": redis_password,
        "s3.json": json.dumps({"identities": [identity]}),
        "grafana_password": secrets.token_urlsafe(20),
    }


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "secrets")
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        sys.exit(f"{folder} is there already, and was left as it is")
    for name, value in values().items():
        (folder / name).write_text(value)
        (folder / name).chmod(0o444)
    sys.stdout.write(f"wrote {folder}; the API key of {OWNER} is in {folder / 'api_key'}\n")


if __name__ == "__main__":
    main()
