"""Credentials: what is found, and what only stands where one would stand.

Every secret is put together here from pieces, so that this file holds none.
"""

import base64
import json
import string
import subprocess
import sys
from importlib import import_module
from typing import Any

import pytest
import re2
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from trackbed.rails.library.plugins import PLUGINS, forms
from trackbed.rails.library.secrets import WORDS, Secrets
from trackbed.rails.stage import mask
from trackbed.rails.types import Models, Turn, Verdict

MIXED = "q7RkZ2pXv9TbW4mLs8YdJ1hGc6NfA3uE5oQiKxP0" * 3  # as random as a key
HEX = "3f9a1c7e5b2d8046" * 4
UPPER = "Q7RKZ2PXV9TBW4MLS8YD"
DASHES = "-" * 5


def encoded(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def pem(kind: str, body: str, end: bool = True) -> str:
    name = f"{kind} PRIVATE KEY".strip()
    return f"{DASHES}BEGIN {name}{DASHES}\n{body}\n" + (f"{DASHES}END {name}{DASHES}" if end else "")


JWT = f"{encoded({'alg': 'HS256', 'typ': 'JWT'})}.{encoded({'sub': '1234567890'})}.{MIXED[:43]}"
NO_JWT = f"{encoded({'typ': 'JWT', 'kid': '1'})}.{encoded({'sub': '1234567890'})}.{MIXED[:43]}"

KNOWN = {
    "AWS_ACCESS_KEY": ["AK" + "IA" + UPPER[:16], "AS" + "IA" + UPPER[:16]],
    "GITHUB_TOKEN": [
        "gh" + "p_" + MIXED[:36],
        "gh" + "s_" + MIXED[:36],
        "github" + "_pat_" + MIXED[:22] + "_" + MIXED[:59],
    ],
    "GITLAB_TOKEN": ["gl" + "pat-" + MIXED[:20], "gl" + "oas-" + MIXED[:64], "GR" + "1348941" + MIXED[:20]],
    "ARTIFACTORY_KEY": ["AK" + "Cp8" + MIXED[:60], "AP" + "B4f7Kq9ZtL2m"],
    "DISCORD_TOKEN": ["M" + MIXED[:23] + "." + MIXED[:6] + "." + MIXED[:27]],
    "MAILCHIMP_KEY": [HEX[:32] + "-us" + "12"],
    "SQUARE_SECRET": ["sq" + "0csp-" + MIXED[:43]],
    "SLACK_TOKEN": ["xo" + "xb-" + "123456789012-" + MIXED[:24], "xo" + "xp-" + MIXED[:24]],
    "SLACK_WEBHOOK": ["/".join([UPPER[:9], UPPER[:9], MIXED[:24]])],
    "GOOGLE_API_KEY": ["AI" + "za" + MIXED[:35]],
    "GOOGLE_CLIENT_SECRET": ["GO" + "CSPX-" + MIXED[:28]],
    "STRIPE_KEY": ["sk" + "_live_" + MIXED[:24], "rk" + "_test_" + MIXED[:24]],
    "ANTHROPIC_API_KEY": ["sk" + "-ant-" + "api03-" + MIXED[:95]],
    "OPENAI_API_KEY": ["sk" + "-" + MIXED[:48], "sk" + "-proj-" + MIXED[:100]],
    "HUGGING_FACE_TOKEN": ["hf" + "_" + MIXED[:34]],
    "NPM_TOKEN": ["np" + "m_" + MIXED[:36]],
    "PYPI_TOKEN": ["py" + "pi-" + "AgEIcHlwaS5vcmc" + MIXED[:70]],
    "SENDGRID_KEY": ["S" + "G." + MIXED[:22] + "." + MIXED[:43]],
    "MAILGUN_KEY": ["ke" + "y-" + HEX[:32]],
    "TWILIO_KEY": ["S" + "K" + HEX[:32], "A" + "C" + HEX[:32]],
    "TELEGRAM_BOT_TOKEN": ["123456789:" + "AA" + MIXED[:33]],
    "SHOPIFY_TOKEN": ["shp" + "at_" + HEX[:32]],
    "DIGITALOCEAN_TOKEN": ["do" + "p_v1_" + HEX],
    "DATABRICKS_TOKEN": ["da" + "pi" + HEX[:32]],
    "JWT": [JWT],
    "PRIVATE_KEY": [
        pem("", MIXED[:64] + "\n" + MIXED[:40] + "=="),
        pem("RSA", "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n" + MIXED[:64]),
        pem("OPENSSH", MIXED[:64], end=False).rstrip(),
        pem("EC", MIXED[:64]).replace("\n", "\\n"),
    ],
}

# The text, with the secret between the two pieces.
AROUND = {
    "ARTIFACTORY_KEY": ("X-JFrog-Art-Api: ", " works"),
    "SLACK_WEBHOOK": ("https://hooks.slack.com/services/", ""),
    "AZURE_KEY": ("DefaultEndpointsProtocol=https;AccountName=a;AccountKey=", ";EndpointSuffix=core.windows.net"),
}

IN_PLACE = [
    ("AZURE_KEY", "AccountName=a;AccountKey=", MIXED[:86] + "==", ";EndpointSuffix=b"),
    ("AUTHORIZATION", "Authorization: Bearer ", MIXED[:40], "\n"),
    ("AUTHORIZATION", "curl -H 'authorization: basic ", MIXED[:24] + "=", "'"),
    ("URL_PASSWORD", "postgres://admin:", "hunter2", "@db.internal:5432/app"),
    ("URL_PASSWORD", "redis://:", "p@ss:w0rd", "@localhost"),
    ("URL_PASSWORD", "https://user:", "pass", "@host.org/path?x=1"),
    ("PASSWORD", "password=", "hunter2", ""),
    ("PASSWORD", "My password is ", "Tr0ub4dor&3", ", do not tell"),
    ("PASSWORD", "{'db_password': '", "s3cr3t!", "'}"),
    ("PASSWORD", "DB_PASSWD=", "12345678", "\n"),
    ("PASSWORD", 'passphrase: "', "correct-horse-battery-staple", '"'),
    ("PASSWORD", "<password>", "abc123", "</password>"),
    ("PASSWORD", 'adminPassword = "', "qwerty(1)", '"'),
    ("PASSWORD", r"\"password\": \"", "hunter2", r"\""),
    ("ARTIFACTORY_KEY", 'key="', "AK" + "Cp8" + MIXED[:60], '"'),
    ("AWS_SECRET_KEY", "aws_key = '", MIXED[:38] + "/+", "'"),
    ("CLOUDANT_KEY", "cloudant_pass = ", HEX, ""),
    ("URL_PASSWORD", "https://acme:", "hqzkwvxyjtrmnbpldsfgcaeu", "@acme.cloudant.com"),
    ("SOFTLAYER_KEY", "sl_key: '", HEX, "'"),
    ("SOFTLAYER_KEY", "https://api.softlayer.com/soap/v3/", HEX, ""),
    ("API_KEY", "ibm_iam_key = ", MIXED[:44], ""),
    ("API_KEY", "cos_hmac_secret_access_key: '", HEX[:48], "'"),
    ("API_KEY", "api_key: ", MIXED[:20], ""),
    ("API_KEY", 'API-KEY = "', HEX[:32], '";'),
    ("API_KEY", "aws_secret_access_key = ", MIXED[:40], "\n"),
    ("API_KEY", "the token is ", MIXED[:16], "."),
    ("API_KEY", "CLIENT_SECRET=", MIXED[:24], " ID=5"),
]

CLEAN = [
    "AK" + "IA" + UPPER[:15],
    "AK" + "IA" + "X" * 16,
    "gh" + "p_short",
    "gh" + "p_" + "x" * 36,
    "sk" + "-...",
    "sk" + "-your-api-key-goes-right-here-1",
    "class sk" + "-toggleable-content-fitted-wide",
    "hf" + "_hub_download(repo_id, filename)",
    NO_JWT,
    "eyJ" + "hello.world.again",
    f"a file that starts with {DASHES}BEGIN RSA PRIVATE KEY{DASHES} is a private key",
    f"{DASHES}BEGIN PUBLIC KEY{DASHES}\n{MIXED[:64]}\n{DASHES}END PUBLIC KEY{DASHES}",
    f"{DASHES}BEGIN PRIVATE KEY{DASHES}\n...\n{DASHES}END PRIVATE KEY{DASHES}",
    "https://host.org:8080/user@example",
    "https://user@host.org/path",
    "postgres://user:${DB_PASSWORD}@host/db",
    "postgres://user:<password>@host/db",
    "postgres://user:xxxx@host/db",
    "Authorization: Bearer <token>",
    "Authorization: Bearer YOUR_ACCESS_TOKEN_GOES_HERE_1",
    "a basic understanding of internationalisation",
    "bearer instruments",
    "api_key = YOUR_API_KEY_1234567890",
    "API_KEY=xxxxxxxxxxxxxxxx1",
    "api_key: <your-key-here-12345>",
    "api_key = os.environ['API_KEY_1']",
    "token = settings.auth2.token_name",
    "token: str | None = None",
    "token=${TOKEN_2_VALUE}",
    "api_key = '{{ vault.key1 }}'",
    "access_token = create_access_token(data1)",
    "secret: 000000000000",
    "max_tokens: 1234567890123",
    "password: required",
    "Password: must be at least 8 characters",
    "my password is not working",
    "your password is too-short",
    "the password is case-sensitive.",
    "password = get_password1()",
    "password=$PASSWORD1",
    "password=********",
    "password: changeme123",
    "password: SecretStr",
    "password: 12+",
    "password: example123",
    "I forgot my password and cannot log in to account 12345678",
    "the secret to happiness is simplicity",
    "sha256:" + HEX,
    "AK" + "C" + "short",
    "APARTMENTHOUSES in Paris",
    "APPLICATION1 and APACHE2LICENSES"[:12],
    "the sl_key is " + HEX[:20],
    "cloudant_pass = " + HEX[:63],
    "aws_region = 'eu-central-1'",
    "an aws password is never 'forty characters of prose and not a key'",
    HEX[:31] + "-us12",
    "cities such as " + "x" * 10 + "-us1",
    "M" + MIXED[:10] + "." + MIXED[:6] + "." + MIXED[:27],
    "sq" + "0csp-" + MIXED[:20],
    "SK" + HEX[:30],
    "https://api.softlayer.com/soap/v3/SoftLayer_Account",
    "gl" + "oas-" + "documentation",
    "550e8400-e29b-41d4-a716-446655440000",
    "",
]


async def judge(text: str, **config: Any) -> Verdict:
    return await Secrets(Secrets.Config(**config), Models()).check(Turn("", text=text))


async def masked(text: str) -> str:
    """The text as a policy with `then: mask` leaves it."""
    verdict = await judge(text)
    return mask(Turn("", text=text), verdict) or text


@pytest.mark.parametrize(("label", "secret"), [(label, secret) for label, some in KNOWN.items() for secret in some])
async def test_a_key_with_a_form_of_its_own_is_found_and_nothing_beside_it(label: str, secret: str) -> None:
    before, after = AROUND.get(label, ("use ", ", it works"))
    assert await masked(before + secret + after) == f"{before}<{label}>{after}"


@pytest.mark.parametrize(("label", "before", "secret", "after"), IN_PLACE)
async def test_a_secret_is_found_by_where_it_stands(label: str, before: str, secret: str, after: str) -> None:
    assert await masked(before + secret + after) == f"{before}<{label}>{after}"


@pytest.mark.parametrize("text", CLEAN)
async def test_placeholders_code_and_prose_pass(text: str) -> None:
    assert await masked(text) == text


def test_every_kind_is_tried() -> None:
    assert KNOWN.keys() | {label for label, *_ in IN_PLACE} == WORDS.keys()


async def test_the_most_telling_kind_names_a_secret_that_several_find() -> None:
    verdict = await judge("api_key=" + KNOWN["ANTHROPIC_API_KEY"][0])
    assert (verdict.categories, verdict.detail) == (("ANTHROPIC_API_KEY",), "Anthropic API key")


async def test_the_policy_sets_how_random_an_assigned_key_must_be() -> None:
    text = "token: abcabcabc123"  # 2.4 bits a character
    assert [(await judge(text, entropy=bits)).action for bits in (2.0, 3.0)] == ["block", "allow"]


async def test_the_detail_never_holds_the_secret() -> None:
    verdict = await judge(f"password=hunter2 {KNOWN['NPM_TOKEN'][0]}")
    assert verdict.detail == "password, npm token"


@pytest.mark.parametrize("config", [{"entropy": -1}, {"entropy": 9}, {"entropie": 3}])
def test_a_config_that_makes_no_sense_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Secrets.Config(**config)


PIECES = [
    "password",
    "=",
    ": ",
    "'",
    "://",
    "a:b@",
    "eyJ",
    ".",
    "sk-",
    "Bearer ",
    f"{DASHES}BEGIN PRIVATE KEY{DASHES}",
    MIXED,
]


@given(st.lists(st.sampled_from(PIECES) | st.text(st.characters(categories=None), max_size=5)).map("".join))
async def test_findings_are_sorted_apart_and_inside_the_text(text: str) -> None:
    findings = (await judge(text)).findings
    ends = [0, *(end for f in findings for end in (f.start, f.end))]
    assert ends == sorted(ends)
    assert ends[-1] <= len(text)
    assert all(f.start < f.end and f.label in WORDS for f in findings)


@given(st.text(string.ascii_lowercase + " .,:;", max_size=200))
async def test_prose_in_lower_case_holds_no_secret(text: str) -> None:
    assert (await judge(text)).action == "allow"


def test_of_the_plugins_patterns_none_is_lost() -> None:
    """An update of the package that says something new in a pattern fails here, and not by finding less."""
    taken = forms()
    given = [
        pattern.pattern
        for plugin in PLUGINS
        for pattern in getattr(import_module(f"detect_secrets.plugins.{plugin.module}"), plugin.name).denylist
    ]
    assert len(given) - len(taken) == 1, "of AWS the access key, which has a form here"
    assert all(re2.compile(form.pattern).groups for form in taken)


def test_rails_are_imported_without_the_plugins() -> None:
    code = "import sys, trackbed.rails.library.secrets; print({'requests', 'detect_secrets'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
