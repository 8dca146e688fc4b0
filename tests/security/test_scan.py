"""The scanner: keys are found by their form, stand-ins are not, and no text makes it slow or holds a key afterwards."""

from __future__ import annotations

import difflib
import random
import string
import time
from enum import StrEnum

import pytest

from agentd.security.scan import MARK, Redactor, redact, scan, secrets_of

MIXED = string.ascii_letters + string.digits


def made(length: int, alphabet: str = MIXED, seed: int = 7) -> str:
    """Made here, so that no file holds what looks like a key."""
    return "".join(random.Random(seed).choices(alphabet, k=length))


BODY = "\n".join(made(64, seed=n) for n in range(12))
HEAD, TAIL = "-----BEGIN {}PRIVATE " + "KEY-----", "-----END {}PRIVATE " + "KEY-----"
SECRETS = {
    "AWS key id": ["AKIA" + made(16, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")],
    "AWS secret key": [f"aws_secret_access_key = {made(40)}", f'"AWS_SECRET_KEY": "{made(40)}"'],
    "GitHub token": ["ghp_" + made(36), "gho_" + made(36), f"github_pat_{made(22)}_{made(59)}"],
    "GitLab token": ["glpat-" + made(20), "glrt-" + made(20)],
    "Slack token": [f"xoxb-123456789012-1234567890123-{made(24)}", f"xapp-1-A{made(10)}-{made(40)}"],
    "Slack webhook": [f"https://hooks.slack.com/services/T{made(8)}/B{made(8)}/{made(24)}"],
    "Stripe key": ["sk_live_" + made(24), "rk_test_" + made(40)],
    "webhook secret": ["whsec_" + made(32)],
    "Google key": ["AIza" + made(35)],
    "Google secret": ["GOCSPX-" + made(28)],
    "Google token": ["ya29." + made(60)],
    "model server key": ["sk-ant-api03-" + made(93), "sk-proj-" + made(60), "sk-" + made(48), "sk-or-v1-" + made(64)],
    "Hugging Face token": ["hf_" + made(34)],
    "npm token": ["npm_" + made(36)],
    "PyPI token": ["pypi-AgEIcHlwaS5vcmc" + made(80)],
    "SendGrid key": [f"SG.{made(22)}.{made(43)}"],
    "Telegram token": [f"123456789:AA{made(33)}"],
    "Twilio key": [f"twilio_key = SK{made(32, '0123456789abcdef')}"],
    "DigitalOcean token": ["dop_v1_" + made(64, "0123456789abcdef")],
    "Shopify token": ["shpat_" + made(32, "0123456789abcdef")],
    "Databricks token": ["dapi" + made(32, "0123456789abcdef")],
    "Azure access signature": [f"https://x.blob.core.windows.net/a?sp=r&sig={made(43)}%3D"],
    "Azure client secret": [f"{made(3)}8Q~{made(34)}"],
    "Azure DevOps token": ["AZURE_PAT=" + made(52, string.ascii_lowercase + string.digits)],
    "AWS key": ["ABSK" + made(120)],
    "Atlassian token": ["ATATT3xFfGF0" + made(180), "ATBB" + made(32)],
    "Discord webhook": [f"https://discord.com/api/webhooks/{made(18, string.digits)}/{made(68)}"],
    "Discord token": [f"discord = 'MTA{made(23)}.{made(6)}.{made(38)}'"],
    "Vault token": ["hvs." + made(95), "VAULT_TOKEN=s." + made(24)],
    "Terraform token": [f"{made(14)}.atlasv1.{made(67)}"],
    "Airtable token": [f"pat{made(14)}.{made(64, '0123456789abcdef')}"],
    "New Relic key": ["NRAK-" + made(27, string.ascii_uppercase + string.digits)],
    "service token": [
        f"gsk_{made(52)}",
        f"dckr_pat_{made(27)}",
        f"figd_{made(40)}",
        f"sbp_{made(40)}",
        f"glsa_{made(32)}",
    ],
    "key of an application": [f"APP_KEY=base64:{made(43)}="],
    "bearer token": [
        f"Authorization: Bearer {made(40)}",
        f'"Authorization": "Bearer {made(32, "0123456789abcdef")}"',
        f"authorization: token {made(40, '0123456789abcdef')}",
    ],
    "login": [
        "Authorization: Basic YW5uOnhLOW1QMnZMNXFSOA==",
        '{"auths": {"r.io": {"auth": "YW5uOnhLOW1QMnZMNXFSOA=="}}}',
        "curl -s -u ann:xK9mP2vL5qR8 https://x.io",
        "machine x.io login ann password xK9mP2vL5qR8",
        "sshpass -p 'xK9mP2vL5qR8' ssh x",
    ],
    "Azure storage key": [f"AccountName=x;AccountKey={made(86)}==;"],
    "age key": ["AGE-SECRET-KEY-1" + made(58, string.ascii_uppercase + string.digits)],
    "agentd key": ["agentd_" + made(43)],
    "private key": [
        f"{HEAD.format(kind)}\n{BODY}\n{TAIL.format(kind)}" for kind in ("", "RSA ", "EC ", "OPENSSH ", "ENCRYPTED ")
    ],
    "web token": [f"Bearer eyJ{made(30)}.eyJ{made(60)}.{made(43)}"],
    "login in an address": ["postgres://admin:s3cr3tP4ss@db.internal:5432/x", f"https://bot:{made(20)}@git.internal/a"],
    "password": [
        'password = "xK9#mP2$vL5qR8"',
        "DB_PASSWORD=xK9mP2vL5qR8Tz1W",
        f"  api_key: {made(32)}",
        f'"client_secret": "{made(32)}"',
        f"token: '{made(40)}'",
        f'config["secret"] = "{made(24)}"',
        f"SECRET_KEY = b'{made(50)}'",
        f"secret_key_base: {made(128, '0123456789abcdef')}",
        f"client_secret={made(32, '0123456789abcdef')}",
        f'export const AUTH_TOKEN: string = "{made(40)}"',
        "define('DB_PASSWORD', 'xK9mP2vL5qR8');",
        f'<add key="ApiKey" value="{made(32)}" />',
        "<password>xK9mP2vL5qR8</password>",
        "Server=db;User Id=sa;Password=xK9mP2vL5q;",
        "POSTGRES_PASSWORD=Tr0ub4dor&3",
        "  password: kX93jd02mQ",
        f"PRIVATE_KEY=0x{made(64, '0123456789abcdef')}",
    ],
}
ORDINARY = [
    'password = "changeme123A!"',
    "token = get_token()",
    'password = os.environ["PASSWORD"]',
    "api_key: ${API_KEY}",
    "https://user:password@host/",
    "https://user:<password>@host/",
    'secret = "my-secret-Value1"',
    "AKIAIOSFODNN7" + "EXAMPLE",
    f'HEADER = "{HEAD.format("")}"',
    "ghp_" + "x" * 36,
    "sk-" + "your-key-goes-here-and-is-long-enough",
    "token: str = Field(default=None)",
    "def token(self) -> str:",
    'PASSWORD_HASHERS = "django.contrib.auth.hashers.PBKDF2PasswordHasher"',
    "commit 8ac5db7f460d910f6e5d5b7c9ad3b0a1c2d3e4f5",
    "sha256:" + made(64, "0123456789abcdef"),
    "http://127.0.0.1:8080/a@b",
    "data:image/png;base64," + made(200),
    "uuid: 0b0b6b0c-6b0a-4b0e-8b0d-0b0b6b0c6b0a",
    '"integrity": "sha512-' + made(86) + '=="',
    "integrity sha384-" + made(64),
    "checksum = '" + made(64, "0123456789abcdef") + "'",
    "actions/checkout@" + made(40, "0123456789abcdef"),
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + made(43),
    f"-----BEGIN PUBLIC KEY-----\n{BODY}\n-----END PUBLIC KEY-----",
    "pk_live_" + made(24),
    "Authorization: Bearer <token>",
    "headers = {'Authorization': f'Bearer {self.token}'}",
    "Authorization: Basic dXNlcjpwYXNzd29yZA==",
    "curl -u user:password https://x.io",
    "authenticate(username=username, password=rawPassword1)",
    "token=create_access_token(identity=user.id2)",
    "password = getpass.getpass('Password: ')",
    "secretKeyRef:\n  name: db\n  key: password-2024-prod",
    "'SingleSignOnCredential', 'ASAuthorizationSingleSignOnProvider'",
    "secret_manager_secret_version_access_key_2024_v2",
    "tokens: { primary500: '#3B82F6' }",
    "PASSWORD_RESET_TIMEOUT_DAYS = 3",
    'token_url = "https://login.x.io/common/oauth2/v2.0/token"',
]


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in SECRETS.items() for text in texts])
@pytest.mark.parametrize("around", ["{}", "before\n{} after", "+    x = f({});", "\ufeffé {}\r\n"])
def test_each_kind_is_found_and_gone_after_redaction(kind: str, text: str, around: str) -> None:
    whole = around.format(text)
    found = scan(whole)
    assert kind in [finding.kind for finding in found]
    clean = redact(whole)
    assert MARK.search(clean)
    for finding in found:
        assert whole[finding.start : finding.end] not in clean
    assert not scan(clean)
    assert redact(clean) == clean


@pytest.mark.parametrize("text", ORDINARY)
def test_what_only_speaks_of_secrets_is_left_alone(text: str) -> None:
    assert scan(text) == []
    assert redact(text) == text


def test_lines_are_counted_and_findings_do_not_overlap() -> None:
    token = "ghp_" + made(36)
    text = f"one\ntwo {token}\nthree\npassword = '{token}' and {token}\n"
    assert [finding.line for finding in scan(text)] == [2, 4, 4]
    assert all(text[finding.start : finding.end] == token for finding in scan(text))


def test_known_values_are_found_in_any_form() -> None:
    assert [finding.kind for finding in scan("say open sesame, open sesame", ["open sesame"])] == [
        "secret of the vault"
    ] * 2
    assert "sesame" not in redact("x open sesame y", ["open sesame"])


def test_a_key_whose_end_was_cut_off_is_left_out_as_far_as_it_stands() -> None:
    clean = redact(f"{HEAD.format('RSA ')}\n{BODY}")
    assert BODY.splitlines()[-1] not in clean


HOSTILE = [
    HEAD.format("") * 30_000,
    HEAD.format("") + "A" * 800_000,
    "eyJ" * 250_000,
    f"eyJ{'a' * 20}.eyJ" * 40_000,
    "password=" * 80_000,
    'password = "' + "aB3$" * 200_000,
    "a://" * 200_000,
    "a://b:" * 120_000,
    "aws" * 250_000,
    "aws secret key " * 50_000,
    "twilio " * 100_000,
    "sk-" * 250_000,
    "token: " * 100_000,
    "token: a" * 80_000,
    "token', '" * 80_000,
    "<password>" * 70_000,
    "password=" + "aB3-" * 200_000,
    "bearer " * 100_000,
    "bearer " + "a" * 700_000,
    "basic " * 120_000,
    "curl " * 150_000,
    "curl -u a" * 80_000,
    "login a " * 90_000,
    "Private-Lines: 8\n" * 50_000,
    "Private-Lines: 8\n" + "a" * 700_000,
    "?sig=" * 150_000,
    "discord " + "MNO" * 250_000,
    "vault s." * 90_000,
    "key-secret_" * 70_000,
    "$ a:$6$" * 100_000,
    "auth: " * 120_000,
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:12])
def test_no_text_makes_it_slow(text: str) -> None:
    began = time.process_time()
    scan(text)
    assert time.process_time() - began < 20  # some tenths of a second; what is quadratic takes minutes


# diffs and JSON -------------------------------------------------------------------------------------------------------

TOKEN = "ghp_" + made(36)


def _diff(old: list[str], new: list[str]) -> str:
    whole = difflib.unified_diff(old, new, "a/k.txt", "b/k.txt", n=9, lineterm="")
    return "".join(f"{line}\n" for line in whole)


def test_a_diff_adds_what_stands_nowhere_on_its_old_side() -> None:
    line = f"key = {TOKEN}"
    assert list(secrets_of(_diff(["a"], ["a", line]))) == [("k.txt", 2, "GitHub token")]
    assert list(secrets_of(_diff([line, "a"], ["a", f"  {line}"]))) == []
    assert list(secrets_of(_diff([line, "a"], [line, "b"]))) == []
    assert list(secrets_of(_diff(["a"], ["a", "open sesame"]), ["open sesame"])) == [
        ("k.txt", 2, "secret of the vault")
    ]


def test_a_key_is_new_when_only_what_stands_between_its_first_and_last_line_is() -> None:
    head, tail = HEAD.format(""), TAIL.format("")
    other = [made(64, seed=n) for n in range(50, 62)]
    diff = _diff([head, *BODY.split("\n"), tail], [head, *other, tail])
    assert [kind for _, _, kind in secrets_of(diff)] == ["private key"]


def test_json_is_cleaned_but_for_names_and_members() -> None:
    class State(StrEnum):
        OPEN = "verified"

    clean = Redactor(lambda: ["verified"]).clean
    found = clean({"verified": [State.OPEN, "verified x", 1, None], TOKEN: ("a", TOKEN)})
    left = "[left out: GitHub token]"
    assert found == {"verified": ["verified", "[left out: secret of the vault] x", 1, None], left: ["a", left]}
    assert found["verified"][0] is State.OPEN
    plain = {"a": ("b", 2)}
    assert clean(plain) is plain
