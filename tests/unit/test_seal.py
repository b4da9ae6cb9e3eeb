"""Nothing is read that was not sealed with our key, for this place, unchanged and in time."""

import hashlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbqueue.errors import KeyFileError, SealBroken
from nbqueue.wire.seal import Header, Sealer, SealingKey

KEY = SealingKey(b"k" * 32)
OTHER = SealingKey(b"o" * 32)
NOW = 1_000_000.0
TASK = Header(kind="task", run_id=b"r" * 16, start=3, stop=7, function=b"f" * 32, not_after=NOW + 60)
MODES = pytest.mark.parametrize("encrypt", [False, True], ids=["sealed", "encrypted"])


def sealer(*keys, **options):
    return Sealer(keys or [KEY], **{"namespace": "lab", "clock": lambda: NOW, **options})


@MODES
@given(body=st.binary(max_size=2000))
def test_what_was_sealed_can_be_opened(encrypt, body):
    data = sealer(encrypt=encrypt).seal(TASK, body)

    opened = sealer().open(data, kind="task", run_id=TASK.run_id, start=3, stop=7)

    assert (body, encrypt) == (opened.body, opened.is_encrypted)
    assert msgspec.structs.replace(TASK, namespace="lab") == opened.header


@MODES
def test_a_change_of_any_bit_is_seen(encrypt):
    data = sealer(encrypt=encrypt).seal(TASK, b"what is to be done")
    for position in range(len(data)):
        for bit in (0, 7):
            changed = bytearray(data)
            changed[position] ^= 1 << bit
            with pytest.raises(SealBroken):
                sealer().open(bytes(changed), kind="task")


@MODES
def test_a_message_that_is_cut_or_longer_is_seen(encrypt):
    data = sealer(encrypt=encrypt).seal(TASK, b"what is to be done")
    for length in range(len(data)):
        with pytest.raises(SealBroken):
            sealer().open(data[:length], kind="task")
    with pytest.raises(SealBroken, match="does not fit"):
        sealer().open(data + b"\0", kind="task")


@given(data=st.binary(max_size=300))
def test_nonsense_is_refused(data):
    for prefix in (b"", b"NBS1", b"NBS1M" + KEY.id, b"NBS1E" + KEY.id):
        with pytest.raises(SealBroken):
            sealer().open(prefix + data, kind="task")


@pytest.mark.parametrize(
    ("field", "wanted"),
    [
        ("run_id", b"s" * 16),
        ("function", b"g" * 32),
        ("start", 4),
        ("stop", 8),
        ("queue", "gpu"),
        ("tags", ("big",)),
        ("attempt", 2),
    ],
)
@MODES
def test_a_genuine_message_counts_only_in_its_place(field, wanted, encrypt):
    data = sealer(encrypt=encrypt).seal(TASK, b"")

    with pytest.raises(SealBroken, match=f"genuine but for {field}"):
        sealer().open(data, kind="task", **{field: wanted})


@pytest.mark.parametrize("kind", ["function", "result", "failure", "control"])
def test_a_genuine_message_of_one_kind_is_not_taken_for_another(kind):
    with pytest.raises(SealBroken, match="genuine but for kind 'task'"):
        sealer().open(sealer().seal(TASK, b""), kind=kind)


def test_a_genuine_message_of_one_broker_is_not_taken_from_another():
    with pytest.raises(SealBroken, match="namespace 'lab', not 'shop'"):
        sealer(namespace="shop").open(sealer().seal(TASK, b""), kind="task")


def test_a_message_is_too_old_after_its_time():
    data = sealer().seal(TASK, b"")

    assert b"" == sealer(clock=lambda: NOW + 60).open(data, kind="task").body
    with pytest.raises(SealBroken, match="too old"):
        sealer(clock=lambda: NOW + 61).open(data, kind="task")


def test_a_wrong_key_is_named_and_a_word_said_about_how_to_get_the_right_one():
    data = sealer(OTHER).seal(TASK, b"")

    with pytest.raises(SealBroken, match=rf"key {OTHER.name}.* this side has {KEY.name}.*`nbqueue key`"):
        sealer(KEY).open(data, kind="task")


def test_a_seal_of_a_key_that_only_bears_our_name_does_not_fit():
    impostor = SealingKey(b"i" * 32)
    impostor.id = KEY.id

    with pytest.raises(SealBroken, match="does not fit"):
        sealer(KEY).open(sealer(impostor).seal(TASK, b""), kind="task")


@MODES
def test_an_old_key_still_opens_what_it_sealed(encrypt):
    data = sealer(OTHER, encrypt=encrypt).seal(TASK, b"before")

    both = sealer(KEY, OTHER)

    assert b"before" == both.open(data, kind="task").body
    assert b"after" == sealer(KEY).open(both.seal(TASK, b"after"), kind="task").body


def test_the_proof_of_one_mode_is_worth_nothing_in_the_other():
    sealed = bytearray(sealer().seal(TASK, b"body"))
    encrypted = bytearray(sealer(encrypt=True).seal(TASK, b"body"))
    sealed[4:5], encrypted[4:5] = b"E", b"M"

    for data in (sealed, encrypted):
        with pytest.raises(SealBroken, match="does not fit"):
            sealer().open(bytes(data), kind="task")


def test_an_encrypted_body_cannot_be_read_and_never_looks_the_same_twice():
    body = b"the secret of the house"

    first, second = (sealer(encrypt=True).seal(TASK, body) for _ in range(2))

    assert first != second
    assert body not in first
    assert body in sealer().seal(TASK, body)


def test_nothing_shows_the_secret():
    assert "<SealingKey " + KEY.name + ">" == repr(KEY)
    assert KEY.secret not in sealer().seal(TASK, b"")
    assert KEY.secret not in sealer(encrypt=True).seal(TASK, b"")
    assert 3 == len({KEY.secret, KEY.cipher, KEY.id})
    proof = KEY.mac(b"message")
    for other in (KEY.secret, KEY.cipher, KEY.id):
        assert proof != hashlib.blake2b(b"message", key=other, digest_size=len(proof)).digest()


def test_a_key_of_another_length_is_refused():
    with pytest.raises(KeyFileError, match="32 bytes, not 31"):
        SealingKey(b"k" * 31)


def test_the_bytes_of_a_seal_stay_what_they_are():
    # Given the bytes of version 1: whoever changes them must raise the version in MAGIC
    assert GOLDEN == sealer().seal(TASK, b"body").hex()


GOLDEN = (
    "4e4253314da4b56834f7799b1f9709e0e45c07b17f7e37b8d10eb45fe0148befb04588576e33d5e5ffe41de2c74c009aa47461736ba36c61"
    "62a090c410727272727272727272727272727272720307c42066666666666666666666666666666666666666666666666666666666666666"
    "6600cb412e84f800000000626f6479"
)
