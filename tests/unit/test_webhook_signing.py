"""Signatures, by the specification's example and by its own library."""

import base64
import time

import pytest
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

from producer.webhooks.signing import SECRET_BYTES, WebhookSecret, fresh_secret, read_secrets, signed_headers

EXAMPLE = WebhookSecret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", 0.0, None)


def test_the_specifications_example_is_signed_as_it_says() -> None:
    """Its secret, id, moment and payload give its signature."""
    payload = b'{"test": 2432232314}'
    assert signed_headers("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, payload, [EXAMPLE]) == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_a_receiver_with_either_secret_believes_it() -> None:
    """With a third one it does not."""
    signers = [WebhookSecret(fresh_secret(), 0.0, until) for until in (None, 1e12)]
    headers = signed_headers("msg_1", int(time.time()), b'{"a":"\xc3\xbc"}', signers)
    for signer in signers:
        assert Webhook(signer.secret).verify(b'{"a":"\xc3\xbc"}', headers) == {"a": "ü"}
    with pytest.raises(WebhookVerificationError):
        Webhook(fresh_secret()).verify(b'{"a":"\xc3\xbc"}', headers)


def test_secrets_differ_have_the_form_and_are_not_printed() -> None:
    """``whsec_`` and the Base64 of 32 bytes."""
    first, second = fresh_secret(), fresh_secret()
    assert first != second
    assert len(base64.b64decode(first.removeprefix("whsec_"), validate=True)) == SECRET_BYTES
    assert first not in repr(WebhookSecret(first, 0.0, None))


def test_a_secret_that_was_rotated_signs_until_its_time() -> None:
    """The one in force comes first, and has none."""
    stored = b"whsec_new 200.000 -\nwhsec_old 100.000 300.000"
    assert [one.secret for one in read_secrets(stored, 299.0)] == ["whsec_new", "whsec_old"]
    assert [one.secret for one in read_secrets(stored, 300.0)] == ["whsec_new"]
    assert read_secrets(b"", 0.0) == []
