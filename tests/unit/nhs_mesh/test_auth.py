"""The authorisation token, and that nothing secret shows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest

from local import certificates
from nhs_mesh import ConfigurationError, Credentials, MeshClient, token

if TYPE_CHECKING:
    from pathlib import Path

CREDENTIALS = Credentials("X26ABC1", "password", "TestKey")
NONCE = "deadbeef-dead-beef-dead-beef00031337"
MOMENT = datetime(2022, 2, 22, 22, 22, tzinfo=UTC)
KNOWN = f"NHSMESH X26ABC1:{NONCE}:1:202202222222:6e27345bec8d29ea1a3c9d87870b0b5bc98ee510921616506bca1bbea7c66fd6"


def test_the_token_is_the_one_nhs_england_publishes() -> None:
    assert token(CREDENTIALS, nonce=NONCE, nonce_count=1, moment=MOMENT) == KNOWN


def test_a_mailbox_in_lower_case_signs_in_upper_case() -> None:
    lower = Credentials("x26abc1", "password", "TestKey")
    assert token(lower, nonce=NONCE, nonce_count=1, moment=MOMENT) == KNOWN


def test_a_local_time_is_signed_as_utc() -> None:
    summer_time = MOMENT.astimezone(timezone(timedelta(hours=1)))
    assert token(CREDENTIALS, nonce=NONCE, nonce_count=1, moment=summer_time) == KNOWN


@pytest.mark.parametrize(
    ("credentials", "named"),
    [
        (Credentials("X26ABC1\n", "the-password", "the-shared-key"), "mailbox id"),
        (Credentials(" X26ABC1", "the-password", "the-shared-key"), "mailbox id"),
        (Credentials("X26/ABC1", "the-password", "the-shared-key"), "mailbox id"),
        (Credentials("", "the-password", "the-shared-key"), "mailbox id"),
        (Credentials("X26ABC1", "the-password\n", "the-shared-key"), "password"),
        (Credentials("X26ABC1", "", "the-shared-key"), "password"),
        (Credentials("X26ABC1", "the-password", "the-shared-key\r\n"), "shared key"),
        (Credentials("X26ABC1", "the-password", ""), "shared key"),
    ],
)
def test_credentials_that_were_pasted_badly_are_named_at_once(credentials: Credentials, named: str) -> None:
    with pytest.raises(ConfigurationError, match=named) as raised:
        MeshClient("https://localhost:1", credentials, certificate="", private_key="", passphrase=None, ca_bundle="")
    assert "the-" not in str(raised.value)


def test_nothing_secret_shows_in_a_repr(tmp_path: Path) -> None:
    made = certificates.make(tmp_path)
    credentials = Credentials("X26ABC1", "the-password", "the-shared-key")
    with MeshClient(
        "https://localhost:1",
        credentials,
        certificate=made.certificate,
        private_key=made.private_key,
        passphrase=made.passphrase,
        ca_bundle=made.ca_bundle,
    ) as client:
        shown = f"{credentials!r} {credentials} {client!r} {client}"
    assert "X26ABC1" in repr(client)
    for secret in ("the-password", "the-shared-key", made.passphrase, "PRIVATE KEY"):
        assert secret not in shown
