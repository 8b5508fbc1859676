"""From an alarm to the fix: what the runbook is for is broken, its section's commands are followed, and all ends well.

The stories share a stack. The commands are those of docs/operations.md, read from the page; what they say is printed:
``pytest -s`` shows the whole conversation. Whether an alarm rings is asked of watching.yaml and what was measured.
"""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from operator import ge, gt, lt
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from local.dps import Dps
from local.emulator import FunctionError
from local.stack import PROJECT, RECEIVER, LocalCloud
from local.template import Template
from mesh_cli.deployment import local_deployment
from tests import alarms, watching
from tests.e2e.shell import Shell, shell_on
from tests.faults.nhs_mesh.proxy import Proxy, answer
from tests.pages import section
from tests.usecases.rows import row, upload_of, uuid_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


OPERATIONS = PROJECT / "docs" / "operations.md"
WATCHING = Template.read(PROJECT / "watching.yaml")
PARAMETERS = {"RefusedRecordsThreshold": 20, "RejectedRowsThreshold": 100}
COMPARE = {"GreaterThanOrEqualToThreshold": ge, "GreaterThanThreshold": gt, "LessThanThreshold": lt}
#: What a story has read the secret while it is another.
READERS = ("ValidateFunction", "ExportFunction")


@dataclass
class Stage:
    """A stack, somebody at a shell, and DPS.

    Attributes
    ----------
    refuses
        Why DPS refuses every row; empty where it does not.
    """

    cloud: LocalCloud
    shell: Shell
    dps: Dps
    refuses: list[str] = field(default_factory=list)

    # -- what happens

    def upload(self, *rows: str, name: str = "monday.csv", organisation: str = "R1L", drain: bool = True) -> None:
        bucket = self.cloud.outputs["BucketName"]
        key = f"incoming/{organisation}/{name}"
        self.cloud.client("s3").put_object(Bucket=bucket, Key=key, Body=upload_of(*rows).encode())
        if drain:
            self.cloud.drain()

    def export(self) -> Any:
        return self.cloud.invoke("ExportFunction")["exports"]

    def night(self) -> None:
        """Send, have it picked up and answered, and hear that."""
        self.export()
        self.dps.work()
        self.cloud.invoke("TrackFunction")
        self.cloud.invoke("CollectFunction")

    @contextmanager
    def secret(self, **changed: str) -> Iterator[None]:
        """Change fields of the secret; five minutes later the functions know."""
        manager, name = self.cloud.client("secretsmanager"), self.cloud.outputs["MeshSecretArn"]
        before = manager.get_secret_value(SecretId=name)["SecretString"]
        manager.put_secret_value(SecretId=name, SecretString=json.dumps(json.loads(before) | changed))
        self.five_minutes_later()
        try:
            yield
        finally:
            if json.loads(manager.get_secret_value(SecretId=name)["SecretString"]) != json.loads(before):
                manager.put_secret_value(SecretId=name, SecretString=before)
                self.five_minutes_later()

    def five_minutes_later(self) -> None:
        """Let the functions read the secret anew."""
        for function in READERS:
            self.cloud.emulator.kill(function)

    @contextmanager
    def configured(self, function: str, **variables: str) -> Iterator[None]:
        """Have a function fail for its environment."""
        before = self.cloud.environment(function)
        self.cloud.emulator.configure(function, **variables)
        try:
            yield
        finally:
            self.cloud.emulator.configure(function, **{name: before[name] for name in variables})

    @contextmanager
    def quick_queue(self) -> Iterator[None]:
        """Have the queue offer at once what it offers after a minute otherwise."""
        sqs, url = self.cloud.client("sqs"), self.cloud.outputs["UploadsQueueUrl"]
        before = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["VisibilityTimeout"])["Attributes"]
        sqs.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": "1"})
        try:
            yield
        finally:
            sqs.set_queue_attributes(QueueUrl=url, Attributes=before)

    # -- what is typed

    def follow(
        self, heading: str, *, only: str = "", fails: tuple[str, ...] = (), names: Mapping[str, str] | None = None
    ) -> str:
        """Type a section's commands, in its order; return what they said.

        Parameters
        ----------
        fails
            How the commands begin that have to fail, since something is broken.
        only
            Only those blocks in which a command begins so.
        names
            What the page's examples are called here.
        """
        said = ""
        for block in section(OPERATIONS, heading):
            if any(f"{command}\n".startswith(only) for command in block.commands):
                for command in block.commands:
                    said += self.type(command, fails=bool(fails) and command.startswith(fails), names=names)
        return said

    def type(self, command: str, *, fails: bool = False, names: Mapping[str, str] | None = None) -> str:
        for example, name in (names or {}).items():
            command = command.replace(example, name)
        done = self.shell.run(command)
        assert bool(done.returncode) is fails, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    # -- what is seen

    def exports(self, programme: str) -> list[Any]:
        done = self.shell.run(f"mesh exports --programme {programme} --json")
        found: list[Any] = json.loads(done.stdout)
        return found

    def processed(self, *numbers: int) -> bool:
        """Tell whether DPS has processed each of these records exactly once."""
        arrived = [one.row["UNIQUE_ID"] for file in self.dps.files for one in file.rows if not one.refused]
        return all(arrived.count(uuid_of(n)) == 1 for n in numbers)

    def waiting(self, output: str) -> int:
        attributes = self.cloud.client("sqs").get_queue_attributes(
            QueueUrl=self.cloud.outputs[output], AttributeNames=["ApproximateNumberOfMessages"]
        )["Attributes"]
        return int(attributes["ApproximateNumberOfMessages"])

    def mark(self) -> dict[str, int]:
        """Note how far the functions' logs have got."""
        return {name: len(log) for name, log in self.cloud.logs().items()}

    def rings(self, alarm: str, since: dict[str, int]) -> bool:
        """Tell whether what was measured since then makes an alarm ring."""
        [parts] = [p for one, p in alarms.told(WATCHING) if one["AlarmName"]["Fn::Sub"] == f"${{Stack}}-{alarm}"]
        for part in parts:
            threshold = part["Threshold"]
            limit = PARAMETERS[threshold["Ref"]] if isinstance(threshold, dict) else threshold
            for namespace, (name, _) in watching.of_alarm(part):
                values = self._measured(name, since) if namespace == watching.OURS else [self._dead_letters(name)]
                added = sum(values) if part.get("Statistic") == "Sum" else max(values, default=None)
                # What nothing measures is bad only for the alarms that say so.
                if added is None and part["TreatMissingData"] == "breaching":
                    return True
                if added is not None and COMPARE[part["ComparisonOperator"]](added, limit):
                    return True
        return False

    def _dead_letters(self, name: str) -> float:
        assert name == "ApproximateNumberOfMessagesVisible"
        return self.waiting("UploadsDeadLetterQueueUrl")

    def _measured(self, name: str, since: dict[str, int]) -> list[float]:
        logs = (log[since.get(function, 0) :] for function, log in self.cloud.logs().items())
        lines = (line for log in logs for line in log.splitlines() if '"_aws"' in line and f'"{name}":' in line)
        return [value for line in lines for value in json.loads(line[line.index("{") :])[name]]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("operator")
    refuses: list[str] = []
    with LocalCloud() as cloud, cloud.sandbox.client(RECEIVER) as receiver, shell_on(cloud, folder) as shell:
        dps = Dps(receiver, refuse=lambda _: refuses[0] if refuses else None)
        made = Stage(cloud, shell, dps, refuses)
        made.type('eval "$(mesh stack --export)"')
        yield made


def rows(first: int, count: int, programme: str) -> list[str]:
    return [row(n, programme) for n in range(first, first + count)]


def expired(stage: Stage) -> str:
    """Make a certificate for the secret's key that has expired."""
    made = stage.cloud.sandbox.certificates
    key: Any = load_pem_private_key(made.private_key.encode(), made.passphrase.encode())
    subject = x509.load_pem_x509_certificate(made.certificate.encode()).subject
    end = datetime.now(UTC) - timedelta(days=1)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(end - timedelta(days=30)).not_valid_after(end)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def test_a_certificate_that_has_expired(stage: Stage) -> None:
    stage.upload(*rows(100, 2, "HPV"), name="certificate.csv")
    before = stage.mark()
    with stage.secret(certificate=expired(stage)):
        with pytest.raises(FunctionError, match="CertificateExpired"):
            stage.cloud.invoke("ValidateFunction")
        [export] = stage.export()
        assert (export["status"], export["error_code"]) == ("pending", "certificate-expired")
        assert stage.rings("certificate-expires-in-1-day", before)
        assert stage.rings("certificate-expires", before)
        said = stage.follow("certificate-expires", only="mesh exports", fails=("mesh secret check",))
        assert "certificate-expired the client certificate expired on" in " ".join(said.split())
        assert "ask NHS England for a new one" in said
        stage.follow("Rotating", only="mesh secret put --private-key")
        stage.five_minutes_later()
        stage.follow("certificate-expires", only="mesh dps-export")
    [sent] = stage.exports("hpv")
    assert (sent["status"], len(sent["attempts"])) == ("accepted", 1)
    stage.night()
    assert stage.processed(100, 101)


def test_dps_refuses_all_rows(stage: Stage) -> None:
    before = stage.mark()
    stage.upload(*rows(200, 21, "Flu"), name="refused.csv")
    stage.refuses.append("Validation errors: contained[?(@.resourceType=='Patient')].name[0].given does not match")
    try:
        stage.night()
    finally:
        stage.refuses.clear()
    assert stage.rings("records-refused", before)
    names = {"R1L/monday.csv": "R1L/refused.csv"}
    said = stage.follow("records-refused", only="mesh refused --text", names=names)
    assert "processed 0 of 21" in said
    assert "R1L/refused.csv" in said
    assert "Validation" in said
    assert "-refused-flu-" in said
    # The team corrects the records and uploads them again.
    stage.upload(*(one.replace("Quintessa", "Quinta") for one in rows(200, 21, "Flu")), name="corrected.csv")
    stage.night()
    assert "DPS has refused no record" in stage.follow("records-refused", only="mesh refused\n")
    assert stage.processed(*range(200, 221))


def test_mesh_cannot_be_reached_for_six_hours(stage: Stage) -> None:
    stage.upload(*rows(300, 2, "MenACWY"), name="unreachable.csv")
    with Proxy(stage.cloud.sandbox) as proxy:
        proxy.script = [answer(503, Retry_After="400")] * 50
        told = {key: {"Value": value} for key, value in stage.cloud.outputs.items()}
        told["MeshBaseUrl"] = {"Value": proxy.base_url}
        template = json.dumps({"Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}, "Outputs": told})
        stage.cloud.client("cloudformation").create_stack(StackName="unreachable", TemplateBody=template)
        before = stage.mark()
        with (
            stage.shell.with_variables(MESH_STACK="unreachable"),
            stage.configured("ExportFunction", MESH_BASE_URL=proxy.base_url),
            stage.configured("TrackFunction", MESH_BASE_URL=proxy.base_url),
        ):
            stage.export()  # nobody knows whether that arrived, and the hourly runs ask in vain
            six_hours_pass(stage, "menacwy")
            [export] = stage.export()
            assert (export["status"], export["error_code"]) == ("pending", "unavailable")
            with pytest.raises(FunctionError, match="Unavailable"):
                stage.cloud.invoke("TrackFunction")
            assert stage.rings("export-pending", before)
            said = stage.follow("export-pending", only="mesh exports", fails=("mesh secret check",))
            assert "unavailable" in said
            # MESH answers again.
            proxy.script = []
            said = stage.follow("export-pending", only="mesh dps-export")
            assert "accepted" in said
    [sent] = stage.exports("menacwy")
    assert (sent["status"], len(sent["attempts"])) == ("accepted", 1)
    stage.night()
    assert stage.processed(300, 301)


def six_hours_pass(stage: Stage, programme: str) -> None:
    """Let an export's attempt have begun six hours earlier than it has, so that nobody holds it any more."""
    ledger = local_deployment(stage.cloud.environment_of_commands()).wiring.ledger()
    [export] = ledger.exports(programme)

    def earlier(current: Any) -> Any:
        attempts = [replace(each, begun_at=each.begun_at - timedelta(hours=6)) for each in current.attempts]
        return replace(current, attempts=tuple(attempts), lease=None)

    ledger.change(ledger.get(programme, export.number), earlier)


def test_an_upload_fails_each_time_and_the_dead_letter_queue_fills(stage: Stage) -> None:
    before = stage.mark()
    with stage.configured("IngestFunction", BUCKET="no-such-bucket", UPLOADS_QUEUE="https://queue.invalid"):
        with stage.quick_queue():
            stage.upload(*rows(400, 2, "MMR"), name="fails.csv", drain=False)
            until(lambda: stage.waiting("UploadsDeadLetterQueueUrl") == 1)
        assert stage.rings("uploads-dead-letter", before)
        said = stage.follow("uploads-dead-letter")
        [waits] = [line for line in said.splitlines() if "R1L/fails.csv" in line]
        assert "waiting" in waits
    stage.follow("Replaying an upload", only="aws sqs start-message-move-task")
    stage.cloud.drain()
    assert not stage.rings("uploads-dead-letter", before)
    [ingested] = [line for line in stage.follow("uploads-dead-letter").splitlines() if "R1L/fails.csv" in line]
    assert "ingested" in ingested
    stage.night()
    assert stage.processed(400, 401)


def until(holds: Any, seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_tables_are_restored(stage: Stage) -> None:
    stage.upload(*rows(500, 2, "Td/IPV"), name="before.csv")
    stage.night()
    tables = tables_of(stage)
    stage.upload(*rows(502, 2, "Td/IPV"), name="since.csv")
    [sent] = [export for export in stage.export() if export["programme"] == "td_ipv"]
    assert sent["status"] == "accepted"
    stage.upload(*rows(504, 1, "Td/IPV"), name="not-sent.csv")
    stage.follow("Restoring", only="mesh jobs disable")
    assert not any(poller.enabled for poller in stage.cloud.pollers)
    put_back(stage, tables)
    assert sent["export_id"] not in stage.type("mesh exports --programme td_ipv")
    said = stage.follow("Restoring", only="mesh reconcile --restored")
    assert sent["export_id"] in said
    stage.follow("Restoring", only="mesh jobs enable")
    stage.cloud.drain()
    stage.night()
    assert stage.processed(*range(500, 505))
    assert {each["status"] for each in stage.exports("td_ipv")} <= {"acknowledged", "open"}


def tables_of(stage: Stage) -> dict[str, list[Any]]:
    dynamodb = stage.cloud.client("dynamodb")
    names = [stage.cloud.outputs[name] for name in ("DpsExportsTableName", "VaccinationRecordsTableName")]
    return {name: dynamodb.scan(TableName=name)["Items"] for name in names}


def put_back(stage: Stage, tables: dict[str, list[Any]]) -> None:
    """Import the restored tables in the old ones' place."""
    dynamodb = stage.cloud.client("dynamodb")
    for name, items in tables.items():
        keys = [each["AttributeName"] for each in dynamodb.describe_table(TableName=name)["Table"]["KeySchema"]]
        for item in dynamodb.scan(TableName=name)["Items"]:
            dynamodb.delete_item(TableName=name, Key={key: item[key] for key in keys})
        for item in items:
            dynamodb.put_item(TableName=name, Item=item)


def test_the_mailboxs_password_is_lost(stage: Stage) -> None:
    stage.upload(*(one.replace("Priorix", "ProQuad") for one in rows(600, 2, "MMR")), name="password.csv")
    before = stage.mark()
    with stage.secret(password="nobody knows"):
        [export] = stage.export()
        assert (export["status"], export["error_code"]) == ("pending", "unauthorised")
        commands = ("mesh validate-mailbox", "mesh secret check")
        said = stage.follow("mailbox-not-validated", only="mesh secret check", fails=commands)
        assert stage.rings("mailbox-not-validated", before)
        assert "nobody knows" not in said
        assert "mailbox answers" in said
        # MESH's support sets a new one, which is in password.txt.
        stage.follow("Rotating", only="mesh secret put --password-file")
        stage.five_minutes_later()
        since = stage.mark()
        stage.follow("mailbox-not-validated", only="mesh dps-export")
        assert not stage.rings("mailbox-not-validated", since)
    [sent] = stage.exports("mmrv")
    assert (sent["status"], len(sent["attempts"])) == ("accepted", 1)
    stage.night()
    assert stage.processed(600, 601)


def test_an_intake_is_parked(stage: Stage) -> None:
    before = stage.mark()
    broken = {"DPS_EXPORTS_TABLE": "no-such-table", "UPLOADS_QUEUE": "https://queue.invalid"}
    with stage.configured("IngestFunction", **broken), stage.quick_queue():
        stage.upload(*rows(700, 2, "Flu"), name="parked.csv", drain=False)
        stage.upload(*rows(702, 2, "Flu"), name="ended.csv", drain=False)
        register = local_deployment(stage.cloud.environment_of_commands()).wiring.register()
        until(lambda: len(register.parked()) == 2)
        stage.cloud.drain()
    assert stage.rings("uploads-parked", before)
    said = stage.follow("uploads-parked", only="mesh uploads --status parked")
    assert "R1L/parked.csv" in said
    stage.follow("uploads-parked", only="mesh uploads retry", names={"R1L/monday.csv": "R1L/parked.csv"})
    stage.follow("uploads-parked", only="mesh uploads abandon", names={"R1L/monday.csv": "R1L/ended.csv"})
    since = stage.mark()
    stage.follow("uploads-parked", only="mesh reconcile")
    assert not stage.rings("uploads-parked", since)
    stage.night()
    assert stage.processed(700, 701)
    assert not stage.processed(702)
    told = stage.type(f"mesh record find {uuid_of(702)}")
    assert "never sent: its upload was parked" in told


def test_rows_are_rejected_and_their_team_and_file_are_found(stage: Stage) -> None:
    before = stage.mark()
    wrong = (one.replace("SW1A 1AA", "nonsense") for one in rows(800, 101, "HPV"))
    stage.upload(*wrong, name="rejected.csv", organisation="R1L")
    assert stage.rings("rows-rejected", before)
    said = stage.follow("rows-rejected", names={"R1L/monday.csv": "R1L/rejected.csv"})
    [listed] = [line for line in said.splitlines() if line.startswith("R1L/rejected.csv")]
    assert listed.split()[5:8] == ["101", "0", "101"]
    assert "PERSON_POSTCODE" in said
    assert "nonsense" not in said
