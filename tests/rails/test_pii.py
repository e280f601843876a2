"""Personal data: what is found, where exactly, and what only looks like it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from trackbed.rails.errors import RailFailed
from trackbed.rails.library.pii import WORDS, Pii
from trackbed.rails.stage import mask
from trackbed.rails.types import Models, Turn, Verdict


async def judge(text: str, **config: Any) -> Verdict:
    return await Pii(Pii.Config(**config), Models()).check(Turn("", text=text))


async def masked(text: str, **config: Any) -> str:
    """The text as a policy with `then: mask` leaves it."""
    verdict = await judge(text, **config)
    if verdict.action == "allow":
        return text
    result = mask(Turn("", text=text), verdict)
    assert result is not None
    return result


FOUND = [
    # e-mail
    ("mail a@b.org now", "mail <EMAIL_ADDRESS> now"),
    ("John.O'Neil+tag@Mail.Example.co.uk.", "<EMAIL_ADDRESS>."),
    ("<jörg@müller.de>, 用户@例子.公司", "<<EMAIL_ADDRESS>>, <EMAIL_ADDRESS>"),
    ("mailto:a@b.org?subject=x", "mailto:<EMAIL_ADDRESS>?subject=x"),
    ("user=a@b.org&x", "user=<EMAIL_ADDRESS>&x"),
    ("'x@y.io',z@y.io;", "'<EMAIL_ADDRESS>',<EMAIL_ADDRESS>;"),
    ("a@xn--mller-kva.xn--p1ai", "<EMAIL_ADDRESS>"),
    ("a\u200b@b.org", "<EMAIL_ADDRESS>"),
    # cards
    ("my card is 4111 1111 1111 1111", "my card is <CREDIT_CARD>"),
    ("4111-1111-1111-1111, thanks", "<CREDIT_CARD>, thanks"),
    ("card:4111111111111111.", "card:<CREDIT_CARD>."),
    ("3782 822463 10005", "<CREDIT_CARD>"),
    ("5105105105105100 and 6011111111111117", "<CREDIT_CARD> and <CREDIT_CARD>"),
    ("3530111333300000 3056 930902 5904", "<CREDIT_CARD> <CREDIT_CARD>"),
    ("4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1", "<CREDIT_CARD>"),
    ("room 12 4111 1111 1111 1111 99", "room 12 <CREDIT_CARD> 99"),
    ("４１１１ １１１１ １１１１ １１１１", "<CREDIT_CARD>"),
    ("4111\u200b1111\u200b1111\u200b1111", "<CREDIT_CARD>"),
    ("4111\u00a01111\u202f1111\u20111111", "<CREDIT_CARD>"),
    # bank accounts
    ("GB82 WEST 1234 5698 7654 32", "<IBAN_CODE>"),
    ("gb82west12345698765432", "<IBAN_CODE>"),
    ("my iban is de89 3704 0044 0532 0130 00 and yours", "my iban is <IBAN_CODE> and yours"),
    ("DE89-3704-0044-0532-0130-00.", "<IBAN_CODE>."),
    ("NO93 8601 1117 947", "<IBAN_CODE>"),
    # IP addresses
    ("http://192.168.1.20:8080/x", "http://<IP_ADDRESS>:8080/x"),
    ("8.8.8.8/32, 10.0.0.1.", "<IP_ADDRESS>/32, <IP_ADDRESS>."),
    ("[2001:db8::1]:443", "[<IP_ADDRESS>]:443"),
    ("ip:2001:db8::8a2e:370:7334:", "ip:<IP_ADDRESS>:"),
    ("::ffff:192.0.2.1", "<IP_ADDRESS>"),
    ("fe80::1%eth0", "<IP_ADDRESS>%eth0"),
    # social security numbers
    ("my SSN is 078-05-1120", "my SSN is <US_SSN>"),
    ("ssn 219 09 9999", "ssn <US_SSN>"),
    ("Social security: 536904399", "Social security: <US_SSN>"),
    ("536‑90‑4399", "<US_SSN>"),
    # phone numbers
    ("+1 (212) 555-0123", "<PHONE_NUMBER>"),
    ("(+44) 20 7946 0958", "<PHONE_NUMBER>"),
    ("+49 (0)30 123456-78", "<PHONE_NUMBER>"),
    ("+81 3-1234-5678", "<PHONE_NUMBER>"),
    ("212-555-0123 or (212) 555-0124", "<PHONE_NUMBER> or <PHONE_NUMBER>"),
    ("020 7946 0958", "<PHONE_NUMBER>"),
    ("06 12 34 56 78", "<PHONE_NUMBER>"),
    ("appelez le 0612345678", "appelez le <PHONE_NUMBER>"),
    ("347 123 4567", "<PHONE_NUMBER>"),
    ("Tel.: 5403926876", "Tel.: <PHONE_NUMBER>"),
    ("call me at 450 0840. 3 of us", "call me at <PHONE_NUMBER>. 3 of us"),
    ("ring us on 07700 900123 ext. 12", "ring us on <PHONE_NUMBER>"),
    ("mobile (450 0840)", "mobile (<PHONE_NUMBER>)"),
    ("60-56-85-91 (home)", "<PHONE_NUMBER> (home)"),
    # together
    ("call 4111 1111 1111 1111 020 7946 0958", "call <CREDIT_CARD> <PHONE_NUMBER>"),
    ("\U0001f600 a@b.org \ud800 8.8.8.8", "\U0001f600 <EMAIL_ADDRESS> \ud800 <IP_ADDRESS>"),
]

CLEAN = [
    # e-mail
    "user@localhost",
    "a@b and @handle and foo@",
    "git@github.com:org/repo",
    "https://user@host.org/x",
    "logo@2x.png",
    "lodash@4.17.21",
    "actions/checkout@v4.1",
    # cards
    "4111 1111 1111 1112",
    "1234 5678 9012 3456",
    "0.4111111111111111",
    "4111111111111111.25",
    "12 41 11 11 11 11 11 11 11 99",
    "1234567890123456",
    "uuid 550e8400-e29b-41d4-a716-446655440000",
    # bank accounts
    "GB82 WEST 1234 5698 7654 33",
    "ZZ82 WEST 1234 5698 7654 32",
    "in 2020 we were 20 and in 2021 we were 21",
    "XGB82WEST12345698765432",
    # IP addresses
    "version 1.2.3.4",
    "v1.2.3.4",
    "Chrome/120.0.0.0 Safari/537.36",
    "pip install x==1.2.3.4",
    "127.0.0.1 and ::1 and 0.0.0.0",
    "255.255.255.0",
    "256.1.1.1 and 1.2.3.4.5",
    "std::vector abc::def",
    "00:1A:2B:3C:4D:5E at 10:30:45",
    # social security numbers
    "000-12-3456, 666-12-3456, 900-12-3456",
    "123-00-4567 and 123-45-0000",
    "123 45 6789",
    "123456789",
    "my driver's license number is 2270-66-1551",
    # phone numbers
    "order 5403926876",
    "please call about order 212-555-0123",
    "1234567890",
    "0123456789",
    "2024-05-12 10:00 to 12.05.2024",
    "call me on 12.05.2024",
    "1.234.567,89 or $1,250,000 or £1 250 000",
    "ISBN 978-3-16-148410-0, ISBN 0-306-40615-2",
    "doi:10.1038/nature12373",
    "zip 90210-1234",
    "2010 2011 2012",
    "250 300 400 500 600 700 800",
    "01010111 01101000 01100001",
    "lat 52.520008, 13.404954",
    "52.520008 13.404954",
    "pages 211-227 (2003)",
    "timestamp 1714560000",
    "the call took 1714560000 cycles",
    "iPhones: 12345678",
    "population 331,002,651",
    "",
]


@pytest.mark.parametrize(("text", "expected"), FOUND)
async def test_personal_data_is_found_and_nothing_beside_it(text: str, expected: str) -> None:
    assert await masked(text) == expected


@pytest.mark.parametrize("text", CLEAN)
async def test_what_only_looks_like_personal_data_passes(text: str) -> None:
    assert await masked(text) == text


async def test_only_the_entities_asked_for_are_found() -> None:
    text = "a@b.org, 8.8.8.8, 4111 1111 1111 1111"
    assert await masked(text, entities=["IP_ADDRESS"]) == "a@b.org, <IP_ADDRESS>, 4111 1111 1111 1111"


async def test_national_phone_numbers_are_those_of_the_regions_and_international_ones_always() -> None:
    text = "212-555-0123 +44 20 7946 0958"
    assert await masked(text, regions=["FR"]) == "212-555-0123 <PHONE_NUMBER>"
    assert await masked(text, regions=["US"]) == "<PHONE_NUMBER> <PHONE_NUMBER>"


async def test_the_detail_and_the_categories_name_kinds_and_never_the_text() -> None:
    verdict = await judge("a@b.org 8.8.8.8 c@d.org")
    assert verdict.categories == ("EMAIL_ADDRESS", "IP_ADDRESS")
    assert verdict.detail == "e-mail address, IP address"


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"entities": ["EMAIL"]}, "'EMAIL_ADDRESS', 'IBAN_CODE', 'CREDIT_CARD'"),
        ({"entities": []}, "at least 1 item"),
        ({"regions": ["US", "UK"]}, "UK: not an ISO 3166 code"),
        ({"entitys": ["IP_ADDRESS"]}, "Extra inputs are not permitted"),
    ],
)
def test_a_config_that_names_nothing_known_is_refused(config: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Pii.Config(**config)


async def test_more_numbers_than_can_be_judged_in_time_are_a_failure_and_no_verdict() -> None:
    with pytest.raises(RailFailed, match="more than 400 numbers"):
        await judge("020 1111 1111, " * 401)


DIGITS_AND_MARKS = st.text(st.sampled_from(list("0123456789") + list(" -.()+/:@abcx４\u200b\u00a0"))) | st.text(
    st.characters(categories=None)
)


@given(DIGITS_AND_MARKS)
async def test_findings_are_sorted_apart_and_inside_the_text(text: str) -> None:
    findings = (await judge(text)).findings
    ends = [0, *(end for f in findings for end in (f.start, f.end))]
    assert ends == sorted(ends)
    assert ends[-1] <= len(text)
    assert all(f.start < f.end and f.label in WORDS for f in findings)


@given(st.sampled_from([text for text, _ in FOUND if text.isascii()]), st.data())
async def test_what_cannot_be_seen_hides_nothing(text: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(text)))
    hidden = text[:at] + data.draw(st.sampled_from(["\u200b", "\u200d\u2060", "\ufeff", "\u00ad"])) + text[at:]
    plain = [(f.label, f.start + (at <= f.start) * (len(hidden) - len(text))) for f in (await judge(text)).findings]
    found = [(f.label, f.start) for f in (await judge(hidden)).findings]
    assert found == plain
