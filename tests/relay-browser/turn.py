#!/usr/bin/env python3
"""A small TURN client over UDP for the tests of credentials, by RFC 8489 and 8656 and with nothing of the project's own code:
   turn.py HOST PORT        commands as JSON lines on standard input, one answer each on standard output

   {"do": "binding"}                                    -> {"mapped": "IP:PORT"}
   {"do": "allocate", "username": U, "password": P}     -> {"code": 200, "relayed": "IP:PORT"} or {"code": 401}
   {"do": "fresh", ...}                                 -> the same from another port
   {"do": "reach", ..., "peer": "IP:PORT"}              -> the code of a ChannelBind to there, from another port
   {"do": "load", "broker": URL, "key": K}              -> allocations, each with a fresh credential, one after the other
   {"do": "end"}                                        -> {"made": N, "failed": {code: N}, "names": N}

Each allocation is given back at once. A load goes on until the next command comes.
"""

import base64
import hashlib
import hmac
import json
import os
import select
import socket
import struct
import sys
import urllib.request

COOKIE = 0x2112A442
BINDING, ALLOCATE, REFRESH, CHANNEL_BIND = 0x001, 0x003, 0x004, 0x009
USERNAME, INTEGRITY, ERROR, LIFETIME, REALM, NONCE = 0x0006, 0x0008, 0x0009, 0x000D, 0x0014, 0x0015
CHANNEL, PEER, RELAYED, TRANSPORT, MAPPED = 0x000C, 0x0012, 0x0016, 0x0019, 0x0020
TRIES = 5


class Turn:
    def __init__(self, host, port):
        self.server = host, port
        self.begin()

    def begin(self):
        """From a port of its own and knowing nothing."""
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.connect(self.server)
        self.realm = self.nonce = b""

    def exchange(self, method, attributes, key=None):
        """Sends a request until it is answered; gives the class and the attributes of the answer."""
        transaction = os.urandom(12)
        message = encode(method, transaction, attributes, key)
        for tries in range(TRIES):
            self.socket.send(message)
            while select.select([self.socket], [], [], 0.3 * 2**tries)[0]:
                answer = self.socket.recv(2048)
                kind, _, cookie = struct.unpack("!HHI", answer[:8])
                if cookie == COOKIE and answer[8:20] == transaction:
                    return kind & 0x0110, decode(answer)
        raise TimeoutError(f"no answer to method {method}")

    def binding(self):
        kind, attributes = self.exchange(BINDING, [])
        return {"mapped": address(attributes[MAPPED])} if kind == 0x0100 else {"code": code(attributes)}

    def signed(self, method, attributes, username, password):
        """A request with a long-term credential; a nonce that is new or old is taken from the refusal, once."""
        for _ in range(2):
            name = username.encode()
            key = hashlib.md5(name + b":" + self.realm + b":" + password.encode()).digest()
            own = [(USERNAME, name), (REALM, self.realm), (NONCE, self.nonce)] if self.nonce else []
            kind, answer = self.exchange(method, attributes + own, key if own else None)
            if kind == 0x0100:
                return 200, answer
            refused = code(answer)
            fresh = NONCE in answer and answer[NONCE] != self.nonce
            if not fresh or refused not in (401, 438) or (refused == 401 and own):
                return refused, answer
            self.realm, self.nonce = answer.get(REALM, self.realm), answer[NONCE]
        return refused, answer

    def fresh(self, username, password):
        self.begin()
        return self.allocate(username, password)

    def reach(self, username, password, peer):
        self.begin()
        result, _ = self.signed(ALLOCATE, [(TRANSPORT, b"\x11\0\0\0")], username, password)
        assert result == 200, f"allocating: {result}"
        ip, port = peer.rsplit(":", 1)
        hidden = bytes(a ^ b for a, b in zip(socket.inet_aton(ip), struct.pack("!I", COOKIE)))
        address = struct.pack("!HH", 1, int(port) ^ (COOKIE >> 16)) + hidden
        bound, _ = self.signed(CHANNEL_BIND, [(CHANNEL, b"\x40\0\0\0"), (PEER, address)], username, password)
        self.signed(REFRESH, [(LIFETIME, struct.pack("!I", 0))], username, password)
        return {"code": bound}

    def allocate(self, username, password):
        asked = [(TRANSPORT, b"\x11\0\0\0")]
        result, answer = self.signed(ALLOCATE, asked, username, password)
        if result != 200:
            return {"code": result}
        given_back, _ = self.signed(REFRESH, [(LIFETIME, struct.pack("!I", 0))], username, password)
        assert given_back == 200, f"giving back: {given_back}"
        return {"code": 200, "relayed": address(answer[RELAYED])}

    def load(self, broker, key):
        made, failed, names = 0, {}, set()
        while not select.select([sys.stdin], [], [], 0)[0]:
            person = f"load{made % 50}"
            request = urllib.request.Request(f"{broker}/turn?username={person}", headers={"authorization": f"Bearer {key}"})
            with urllib.request.urlopen(request, timeout=5) as response:
                minted = json.load(response)
            names.add(minted["password"])
            result = self.allocate(minted["username"], minted["password"])["code"]
            if result == 200:
                made += 1
            else:
                failed[result] = failed.get(result, 0) + 1
        return {"made": made, "failed": failed, "names": len(names)}


def encode(method, transaction, attributes, key):
    body = b"".join(attribute(kind, value) for kind, value in attributes)
    if key is not None:
        head = struct.pack("!HHI", method, len(body) + 24, COOKIE) + transaction
        body += attribute(INTEGRITY, hmac.new(key, head + body, hashlib.sha1).digest())
    return struct.pack("!HHI", method, len(body), COOKIE) + transaction + body


def attribute(kind, value):
    return struct.pack("!HH", kind, len(value)) + value + bytes(-len(value) % 4)


def decode(message):
    attributes, at = {}, 20
    while at + 4 <= len(message):
        kind, length = struct.unpack("!HH", message[at:at + 4])
        attributes.setdefault(kind, message[at + 4:at + 4 + length])
        at += 4 + length + -length % 4
    return attributes


def address(value):
    port = struct.unpack("!H", value[2:4])[0] ^ (COOKIE >> 16)
    ip = bytes(a ^ b for a, b in zip(value[4:8], struct.pack("!I", COOKIE)))
    return f"{socket.inet_ntoa(ip)}:{port}"


def code(attributes):
    value = attributes.get(ERROR, b"\0\0\0\0")
    return value[2] * 100 + value[3]


def rest(secret, username):
    """The password of a REST credential, made anew."""
    return base64.b64encode(hmac.new(secret.encode(), username.encode(), hashlib.sha1).digest()).decode()


def main():
    turn = Turn(sys.argv[1], int(sys.argv[2]))
    # Unbuffered by hand: `select` must see what no reader has taken yet.
    while line := os.read(0, 65536):
        command = json.loads(line)
        do = command.pop("do")
        if do == "end":
            return
        does = {"binding": turn.binding, "allocate": turn.allocate, "fresh": turn.fresh, "load": turn.load,
                "reach": turn.reach}
        print(json.dumps(does[do](**command)), flush=True)


if __name__ == "__main__":
    main()
