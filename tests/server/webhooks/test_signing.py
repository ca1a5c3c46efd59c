"""The signature is that of Standard Webhooks."""

from __future__ import annotations

from pilotwave_server.webhooks.signing import changed_secret, new_secret, sign


def test_the_example_of_the_specification_is_signed_as_it_says() -> None:
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    made = sign(secret, id="msg_p5jXN8AQM9LWM0D4loKWxJek", timestamp=1614265330, body=BODY)
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


BODY = b'{"test": 2432232314}'


def test_secrets_differ_and_a_changed_one_signs_beside_the_one_before() -> None:
    first = new_secret()
    second, kept = changed_secret(first)
    third, kept_after = changed_secret(kept)
    assert len({first, second, third}) == 3
    both = sign(kept, id="a1", timestamp=1, body=b"x").split()
    assert both == [sign(s, id="a1", timestamp=1, body=b"x") for s in (second, first)]
    assert kept_after == f"{third} {second}"
    assert len(kept_after) <= 128
