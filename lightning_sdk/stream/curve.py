"""CurveZMQ (RFC 26) with the keys of a hub: both sides authenticate each other, and their messages are encrypted.

A key that was made for a hub has 64 bytes, in Base64: the hub's public key, and the secret key of the client who holds
it. Any other text is a passphrase that people chose for both sides. It is stretched by scrypt (RFC 7914) to both pairs
of keys, so that its holder could also take the hub's place.

Only TCP needs this. On one machine a hub is a socket in a folder that no other user enters.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
from typing import NamedTuple

import zmq
from zmq.utils import z85

from lightning_sdk.errors import SettingError

_PREFIX = "lk1-"
_SALT = b"lightning-sdk hub"


class KeyPair(NamedTuple):
    """A public and a secret key, in Z85, as libzmq has them."""

    public: bytes
    secret: bytes


class Credential(NamedTuple):
    """What a key stands for."""

    hub: bytes
    """The hub's public key."""
    own: KeyPair
    """The client's."""


def is_made(key: str) -> bool:
    """Whether a key was made for one hub; otherwise it is a passphrase."""
    return key.startswith(_PREFIX)


def make_pair() -> KeyPair:
    return KeyPair(*zmq.curve_keypair())


def issue(hub: bytes) -> str:
    """A new client's key for the hub with this public key."""
    raw = z85.decode(hub) + z85.decode(make_pair().secret)
    return _PREFIX + base64.urlsafe_b64encode(raw).decode().rstrip("=")


@functools.lru_cache(64)
def credential(key: str) -> Credential:
    """What a client shows with this key. SettingError for one that is not complete."""
    if not is_made(key):
        return Credential(hub_pair(key).public, _pair(_stretch(key)[32:]))
    try:
        raw = base64.urlsafe_b64decode(key.removeprefix(_PREFIX) + "==")
    except (ValueError, binascii.Error):
        raw = b""
    if len(raw) != 64:
        raise SettingError(f"the key {key[:8]}... is not complete: copy all of it, it has 90 characters")
    return Credential(z85.encode(raw[:32]), _pair(raw[32:]))


def hub_pair(passphrase: str) -> KeyPair:
    """The keys of the hub with this passphrase."""
    return _pair(_stretch(passphrase)[:32])


def is_used(address: str) -> bool:
    """Whether what is said to a hub at this address is encrypted."""
    return address.startswith("tcp:")


def protect(socket: zmq.Socket[bytes], address: str, key: str) -> None:
    """Let a socket talk to the hub that this key belongs to, and to nothing else. Call it before it connects.

    Raises:
        SettingError: the key is not complete, or this libzmq cannot encrypt.
    """
    if is_used(address):
        require()
        found = credential(key)
        socket.set(zmq.CURVE_SERVERKEY, found.hub)
        socket.set(zmq.CURVE_PUBLICKEY, found.own.public)
        socket.set(zmq.CURVE_SECRETKEY, found.own.secret)


def require() -> None:
    """SettingError unless this libzmq can encrypt, as that in pyzmq's wheels can."""
    if not zmq.has("curve"):
        raise SettingError(
            "this libzmq was built without CURVE, and a hub that is reached by TCP needs it: "
            "pip install --force-reinstall --only-binary pyzmq pyzmq"
        )


def _pair(secret: bytes) -> KeyPair:
    encoded = z85.encode(secret)
    return KeyPair(zmq.curve_public(encoded), encoded)


@functools.lru_cache(64)
def _stretch(passphrase: str) -> bytes:
    return hashlib.scrypt(passphrase.encode("utf-8", "surrogateescape"), salt=_SALT, n=2**14, r=8, p=1, dklen=64)
