"""Secrets and credentials: what shows, what travels, what is refused."""

from __future__ import annotations

import copy
import dataclasses
import logging
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrun_proto import AccessKey, AccessToken, Config, Secret
from proto_strategies import PROPERTY

printable = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=20)


@PROPERTY
@given(printable)
def test_a_secret_is_revealed_by_that_word_alone(text):
    secret = Secret(text)
    assert secret.reveal() == text
    for shown in (
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret:>10}".strip(),
        f"{secret!r}",
    ):
        assert shown in {"Secret(***)", "***"}
    assert Secret.of(secret) is secret
    assert Secret.of(text) == secret
    assert {secret: 1}[Secret(text)] == 1


def test_equality_is_by_text_and_only_among_secrets():
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert bool(Secret("")) is False
    assert bool(Secret("a")) is True


@pytest.mark.hostile("calling-secrets")
def test_copies_are_the_same_and_pickles_are_refused():
    secret = Secret("a")
    assert copy.copy(secret) is secret
    assert copy.deepcopy([secret])[0] is secret
    for value in (secret, AccessToken(token=secret), AccessKey(access_key_id="i", access_key_secret=secret)):
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            with pytest.raises(TypeError, match="not pickled"):
                pickle.dumps(value, protocol)


@pytest.mark.parametrize(
    "text",
    [
        "hunter2\n",
        "\thunter2",
        " hunter2",
        "hunter2 ",
        "hunter2\r\nb",
        "hunter2\0b",
        "hunter2é",
        "hunter2\x7fb",
        "hunter2\ud800",
        " ",
    ],
)
def test_what_no_field_can_carry_is_refused_without_showing_it(text):
    with pytest.raises(ValueError, match="end of line") as caught:
        Secret(text)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("value", [None, 5, b"hunter2", ["hunter2"]])
def test_a_secret_is_text(value):
    with pytest.raises(TypeError, match="a secret is a str") as caught:
        Secret(value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.hostile("calling-secrets")
def test_logging_shows_nothing(caplog):
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("x").debug(
            "%s %r %s", Secret("hunter2"), AccessToken(token=Secret("hunter2")), [Secret("hunter2")]
        )
    assert "hunter2" not in caplog.text
    assert "***" in caplog.text


def test_a_credential_made_of_a_plain_text_does_not_show_it():
    """Untyped callers exist: the text is taken as a secret, or refused."""
    for make in (
        lambda: AccessKey(access_key_id="i", access_key_secret="hunter2"),
        lambda: AccessKey(access_key_id="i", access_key_secret=Secret("s"), security_token="hunter2"),
        lambda: AccessToken(token="hunter2"),
    ):
        try:
            shown = repr(make())
        except TypeError as error:
            shown = str(error)
        assert "hunter2" not in shown


@pytest.mark.parametrize("key_id", ["a\r\nEvil: 1", "a,b", "a/b", "a b", "é"])
def test_a_key_id_that_breaks_the_field_it_goes_into_is_refused(key_id):
    with pytest.raises(ValueError, match="access_key_id"):
        AccessKey(access_key_id=key_id, access_key_secret=Secret("s"))


@pytest.mark.parametrize(("key_id", "secret"), [("", "s"), ("i", ""), ("", "")])
def test_half_an_access_key_is_refused(key_id, secret):
    with pytest.raises(ValueError, match="one of them is empty"):
        AccessKey(access_key_id=key_id, access_key_secret=Secret(secret))


def test_a_secret_of_another_type_is_a_type_error():
    for make in (
        lambda: AccessKey(access_key_id="i", access_key_secret=b"s"),
        lambda: AccessToken(token=5),
    ):
        with pytest.raises(TypeError):
            make()


# --- expiry


@pytest.mark.parametrize("expires_at", [None, 0.0, 1772798400.0, 1772798400, -5.0])
def test_an_expiry_is_kept_as_it_is_and_belongs_to_the_value(expires_at):
    key = AccessKey(access_key_id="i", access_key_secret=Secret("s"), expires_at=expires_at)
    token = AccessToken(token=Secret("t"), expires_at=expires_at)
    for made in (key, token):
        assert made.expires_at == expires_at
        assert f"expires_at={expires_at!r}" in repr(made)
        other = dataclasses.replace(made, expires_at=1.0)
        assert other != made
        assert dataclasses.replace(other, expires_at=expires_at) == made
        assert hash(dataclasses.replace(made)) == hash(made)
        with pytest.raises(dataclasses.FrozenInstanceError):
            made.expires_at = 2.0


def test_nobody_knows_when_a_configs_credential_ends():
    for config in (Config(token="t"), Config(access_key_id="i", access_key_secret="s", security_token="t")):
        assert config.credential.expires_at is None
