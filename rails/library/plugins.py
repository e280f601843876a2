"""Forms of secrets that detect-secrets (https://github.com/Yelp/detect-secrets) knows, and this package has none for.

Its plugins' patterns are read, and RE2 compiles them; neither Python's `re` nor the plugins' checks over the network
ever run. What RE2 lacks of them is a look at the neighbouring character, which is written here as that character
itself. A pattern that changes so that this no longer does stops the rail when it is made: it does not find less.
"""

from functools import cache
from importlib import import_module
from typing import NamedTuple


class Plugin(NamedTuple):
    """A plugin, and what its secrets are called here."""

    module: str
    name: str
    label: str
    words: str
    whole: bool  # whether a match is the secret; else its first group is
    mixed: bool = True  # whether a secret has letters and digits, as those of words alone are none


class Form(NamedTuple):
    """A pattern, whose first group is a secret but for quotes and spaces around it."""

    plugin: Plugin
    pattern: str


PLUGINS = (
    Plugin("artifactory", "ArtifactoryDetector", "ARTIFACTORY_KEY", "Artifactory key", whole=True),
    Plugin("aws", "AWSKeyDetector", "AWS_SECRET_KEY", "AWS secret key", whole=False),
    Plugin("cloudant", "CloudantDetector", "CLOUDANT_KEY", "Cloudant key", whole=False, mixed=False),
    Plugin("discord", "DiscordBotTokenDetector", "DISCORD_TOKEN", "Discord token", whole=True),
    Plugin("gitlab_token", "GitLabTokenDetector", "GITLAB_TOKEN", "GitLab token", whole=True),
    # IBM's forms are those of any key that is assigned, of their length.
    Plugin("ibm_cloud_iam", "IbmCloudIamDetector", "API_KEY", "API key or token", whole=False),
    Plugin("ibm_cos_hmac", "IbmCosHmacDetector", "API_KEY", "API key or token", whole=False),
    Plugin("mailchimp", "MailchimpDetector", "MAILCHIMP_KEY", "Mailchimp key", whole=True),
    Plugin("softlayer", "SoftlayerDetector", "SOFTLAYER_KEY", "SoftLayer key", whole=False),
    Plugin("square_oauth", "SquareOAuthDetector", "SQUARE_SECRET", "Square secret", whole=True),
    Plugin("twilio", "TwilioKeyDetector", "TWILIO_KEY", "Twilio key", whole=True),
)
# What looks at a neighbour, and what takes it in; repetitions that RE2 does not count so far.
WRITTEN: tuple[tuple[str, str], ...] = (
    (r"(?:(?<=\W)|(?<=^))", r"(?:\W|^)"),
    (r"(?![a-zA-Z0-9_\-]))", r")(?:[^a-zA-Z0-9_\-]|$)"),
    (r"(?![a-f0-9]))", r")(?:[^a-f0-9]|$)"),
    (r"(?!\w)", ""),
    ("{50,1024}", "{50,}"),
)
AROUND = " \t\r\n=:\"'"


@cache
def forms() -> tuple[Form, ...]:
    """All of them. Loads detect-secrets, and with it requests, when first asked."""
    return tuple(
        Form(plugin, _form(compiled.pattern, whole=plugin.whole))
        for plugin in PLUGINS
        for compiled in getattr(import_module(f"detect_secrets.plugins.{plugin.module}"), plugin.name).denylist
        if plugin.whole or compiled.groups  # of AWS the access key has none: it has a form here
    )


def _form(pattern: str, *, whole: bool) -> str:
    for look, taken in WRITTEN:
        pattern = pattern.replace(look, taken)
    return f"({pattern})" if whole else f"(?i){pattern}"


def trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """A match without the quotes and spaces at both ends."""
    said = text[start:end]
    return start + len(said) - len(said.lstrip(AROUND)), end - (len(said) - len(said.rstrip(" \t\r\n\"'")))
