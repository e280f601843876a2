"""Tax, social-security and identity numbers: what is found, where exactly, and what only looks like one."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.rails.test_partial import FILL, holds
from trackbed.rails.library.pii import GROUPS, Pii
from trackbed.rails.stage import mask
from trackbed.rails.types import Models, Turn

FOUND = [
    ("Meine Steuer-ID lautet 86 095 742 719.", "Meine Steuer-ID lautet <DE_TAX_ID>."),
    ("IdNr. 47036892816, 86095742719", "IdNr. <DE_TAX_ID>, <DE_TAX_ID>"),
    ("Steuernummer 181/815/08155", "Steuernummer <DE_TAX_NUMBER>"),
    ("St.-Nr.: 93815/08152 (Finanzamt Stuttgart)", "St.-Nr.: <DE_TAX_NUMBER> (Finanzamt Stuttgart)"),
    ("numéro de sécu : 2 95 10 99 126 111 93.", "numéro de sécu : <FR_NIR>."),
    ("NIR 295109912611193", "NIR <FR_NIR>"),
    ("né en Corse : 1 85 05 2A 004 123 56", "né en Corse : <FR_NIR>"),
    ("SIREN : 552 008 443", "SIREN : <FR_SIREN>"),
    ("RCS Paris 732829320", "RCS Paris <FR_SIREN>"),
    ("Mi DNI es 54362315-K, gracias", "Mi DNI es <ES_NIF>, gracias"),
    ("dni 12.345.678-z", "dni <ES_NIF>"),
    ("(12345678Z)", "(<ES_NIF>)"),
    ("NIE X-2482300-W y Y7654321G", "NIE <ES_NIE> y <ES_NIE>"),
    ("CIF: A13 585 625", "CIF: <ES_CIF>"),
    ("Acme, S.L. (B-58378431)", "Acme, S.L. (<ES_CIF>)"),
    ("il mio codice fiscale è RCCMNL83S18D969H", "il mio codice fiscale è <IT_FISCAL_CODE>"),
    ("CF:rssmra85t10a562s;", "CF:<IT_FISCAL_CODE>;"),
    ("P.IVA 07643520567", "P.IVA <IT_VAT_CODE>"),
    ("fattura a IT 00743110157", "fattura a <IT_VAT_CODE>"),
    ("Partita IVA: IT00743110157", "Partita IVA: <IT_VAT_CODE>"),
    ("DNI \uff11\uff12\uff13\uff14\uff15\uff16\uff17\uff18Z", "DNI <ES_NIF>"),
    ("NIE X123\u200b4567L", "NIE <ES_NIE>"),
]

CLEAN = [
    "Steuer-ID 86 095 742 718",  # the check digit
    "11111111111 und 12345678901",
    "Bestellung 4711/2024",
    "am 12/05/2024 und 2024/11/05",
    "+49 86095742719",
    "86.095.742.719,00 Euro",
    "12 86 095 742 719 55",
    "2 95 10 99 126 111 94",  # the key
    "commande 552 008 443",
    "732829320",
    "SIREN 552 008 444",
    "siren at 123456789012",
    "54362315-A and 12345678",
    "model 12345678ZX",
    "X1234567A",
    "AX1234567L",
    "ticket B58378431",
    "CIF: B58378432",
    "RCCMNL83S18D969X",
    "XRCCMNL83S18D969H",
    "ordine 07643520567",
    "P.IVA 07643520568",
    "IT 12345",
    "",
    "9" * 20_000,
    "A1" * 10_000,
]


async def masked(text: str, *entities: str) -> str:
    config: Any = {"entities": list(entities)}
    turn = Turn("", text=text)
    verdict = await Pii(Pii.Config(**config), Models()).check(turn)
    return text if verdict.action == "allow" else mask(turn, verdict) or ""


@pytest.mark.parametrize(("text", "expected"), FOUND)
async def test_an_identity_number_is_found_and_nothing_beside_it(text: str, expected: str) -> None:
    assert await masked(text, "EU") == expected


@pytest.mark.parametrize(("text", "expected"), FOUND)
async def test_an_identity_number_keeps_its_name_beside_the_common_kinds(text: str, expected: str) -> None:
    assert await masked(text, "COMMON", "EU") == expected


@pytest.mark.parametrize("text", CLEAN)
async def test_what_only_looks_like_an_identity_number_passes(text: str) -> None:
    assert await masked(text, "EU") == text


@pytest.mark.parametrize(("text", "expected"), FOUND)
async def test_no_identity_number_is_looked_for_unless_a_policy_asks(text: str, expected: str) -> None:
    left = await masked(text, "COMMON")
    assert not any(f"<{kind}>" in left for kind in GROUPS["EU"])


async def test_a_country_names_its_own_numbers() -> None:
    text = "12345678Z, RCCMNL83S18D969H"
    assert await masked(text, "ES") == "<ES_NIF>, RCCMNL83S18D969H"
    assert await masked(text, "IT_FISCAL_CODE") == "12345678Z, <IT_FISCAL_CODE>"


@given(
    st.lists(st.sampled_from([*(text for text, _ in FOUND), *CLEAN[:-2], *FILL]), max_size=8).map("".join), st.data()
)
def test_what_is_held_of_a_beginning_can_still_become_an_identity_number(text: str, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(text)))
    holds(Pii(Pii.Config(entities=["EU", "COMMON"]), Models()), Turn("", text=text), cut)
