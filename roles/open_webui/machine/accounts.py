"""The administrator of the stack configuration, by Open WebUI's own functions.

``set`` gives the account its password, once for every password that is declared: one that a person
changed in Open WebUI stays. ``token`` prints a token of two minutes for the account.
"""

from __future__ import annotations

import asyncio
import atexit
import hashlib
import hmac
import os
import shutil
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

# Open WebUI prepares its files when it is imported: not those of the one that runs.
os.environ |= {
    "ENABLE_DB_MIGRATIONS": "false",
    "FROM_INIT_PY": "true",
    "GLOBAL_LOG_LEVEL": "ERROR",
    "STATIC_DIR": tempfile.mkdtemp(),
}

from open_webui.models.auths import Auths  # reads the environment
from open_webui.models.users import Users
from open_webui.utils.auth import create_token, get_password_hash

atexit.register(shutil.rmtree, os.environ["STATIC_DIR"])
EMAIL = os.environ["WEBUI_ADMIN_EMAIL"].lower()
PASSWORD = os.environ["WEBUI_ADMIN_PASSWORD"]
NOTE = Path(os.environ["DATA_DIR"], ".administrator")


async def set_administrator() -> None:
    """Make the account where there is none; give it a newly declared password."""
    declared = f"{EMAIL}\0{PASSWORD}".encode()
    mark = hmac.digest(os.environ["WEBUI_SECRET_KEY"].encode(), declared, hashlib.sha256).hex()
    user = await Users.get_user_by_email(EMAIL)
    if user and NOTE.exists() and NOTE.read_text("ascii") == mark:
        return
    hashed = await get_password_hash(PASSWORD)
    if user is None:
        await Auths.insert_new_auth(EMAIL, hashed, "Administrator", role="admin")
    else:
        await Auths.update_user_password_by_id(user.id, hashed)
        await Users.update_user_role_by_id(user.id, "admin")
    NOTE.write_text(mark, "ascii")


async def token() -> str:
    """A token that signs the account in; one that somebody deleted is made again."""
    user = await Users.get_user_by_email(EMAIL)
    if user is None:
        await set_administrator()
        user = await Users.get_user_by_email(EMAIL)
    auth = await Auths.get_auth_by_id(user.id)
    claims = {"id": user.id, "typ": "session", "session_stamp": auth.session_stamp}
    return str(create_token(claims, timedelta(minutes=2)))


if __name__ == "__main__":
    if sys.argv[1:] == ["token"]:
        print(asyncio.run(token()))
    else:
        asyncio.run(set_administrator())
