"""Promises of the daily handshake, in memory."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING
from unittest.mock import Mock

import pytest

from local import certificates
from nhs_mesh import CertificateExpired, Unauthorised, certificate_facts
from tests.usecases.memory import MemoryMesh
from tests.usecases.world import DPS, OURS
from vaccinations.jobs.validate import Validate
from vaccinations.results import Validation

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.clocks import Clock

pytestmark = pytest.mark.parametrize("clock", ["noon"], indirect=True)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> str:
    return certificates.make(tmp_path_factory.mktemp("certificates")).certificate


@pytest.fixture
def mesh() -> MemoryMesh:
    return MemoryMesh(OURS, DPS)


def days_before_the_end(clock: Clock, certificate: str, **period: float) -> Clock:
    clock.now = certificate_facts(certificate).not_after - timedelta(**period)
    return clock


def test_mesh_learns_that_the_mailbox_is_in_use_and_we_that_the_certificate_lasts(
    mesh: MemoryMesh, certificate: str, clock: Clock, logged: Callable[[], str]
) -> None:
    clock = days_before_the_end(clock, certificate, days=30, hours=1)
    answer = Validate(lambda: mesh.mailbox(OURS), certificate, clock).run()
    assert answer == Validation(mailbox=OURS, certificate_days_left=30)
    assert answer.status == "ok"
    assert mesh.handshakes == [OURS]
    told = [json.loads(line) for line in logged().splitlines()]
    metrics = {
        name: said[name] for said in told for name in ("MailboxValidated", "CertificateDaysLeft") if name in said
    }
    assert metrics == {"MailboxValidated": [1], "CertificateDaysLeft": [30]}
    [line] = [said for said in told if said.get("message") == "mailbox validated"]
    assert (line["mailbox"], line["certificate_days_left"]) == (OURS, 30)


def test_a_certificate_that_ran_out_counts_its_days_below_zero(
    mesh: MemoryMesh, certificate: str, clock: Clock
) -> None:
    clock = days_before_the_end(clock, certificate, days=-2)
    assert Validate(lambda: mesh.mailbox(OURS), certificate, clock).run().certificate_days_left == -2


def test_a_mailbox_that_mesh_does_not_let_in_is_not_said_to_be_validated(
    mesh: MemoryMesh, certificate: str, clock: Clock, logged: Callable[[], str]
) -> None:
    mesh.fail("handshake", Unauthorised("MESH does not know this password"))
    with pytest.raises(Unauthorised):
        Validate(lambda: mesh.mailbox(OURS), certificate, clock).run()
    assert mesh.handshakes == []
    assert "MailboxValidated" not in logged()


def test_a_certificate_that_nothing_can_be_asked_with_is_said_to_have_run_out(
    certificate: str, clock: Clock, logged: Callable[[], str]
) -> None:
    clock = days_before_the_end(clock, certificate, days=-2)
    connect = Mock(side_effect=CertificateExpired("the client certificate expired"))
    with pytest.raises(CertificateExpired):
        Validate(connect, certificate, clock).run()
    assert '"CertificateDaysLeft":[-2' in logged().replace(" ", "")


def test_the_certificate_is_in_no_traceback(mesh: MemoryMesh, certificate: str, clock: Clock) -> None:
    assert "BEGIN CERTIFICATE" not in repr(Validate(lambda: mesh.mailbox(OURS), certificate, clock))
