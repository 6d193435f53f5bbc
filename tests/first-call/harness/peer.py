"""A participant made of an independent stack (aiortc) and the protocol of signaling/protocol/README.md. It speaks a tone
and prints one JSON object a line about what it hears, until it is ended. No code of Carillon's own clients is in it."""

import argparse
import asyncio
import fractions
import json
import math
import sys

import aioice.ice
import numpy
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCPeerConnection,
    RTCSessionDescription,
    rtcdtlstransport,
)
from av import AudioFrame
from websockets.asyncio.client import connect

RATE = 48000
PROFILES = {
    "GCM-128": rtcdtlstransport.SRTP_AEAD_AES_128_GCM,
    "GCM-256": rtcdtlstransport.SRTP_AEAD_AES_256_GCM,
    "CM-80": rtcdtlstransport.SRTP_AES128_CM_SHA1_80,
}


def say(event, **fields):
    print(json.dumps({"event": event, **fields}), flush=True)


class Tone(MediaStreamTrack):
    kind = "audio"

    def __init__(self, hz):
        super().__init__()
        self.hz = hz
        self.at = 0
        self.began = None

    async def recv(self):
        loop = asyncio.get_event_loop()
        self.began = self.began or loop.time()
        await asyncio.sleep(max(0, self.began + self.at / RATE - loop.time()))
        n = numpy.arange(self.at, self.at + 960)
        samples = (8192 * numpy.sin(2 * math.pi * self.hz * n / RATE)).astype(numpy.int16)
        frame = AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = RATE
        frame.pts = self.at
        frame.time_base = fractions.Fraction(1, RATE)
        self.at += 960
        return frame


async def listen(mid, track):
    """Says the loudest tone of each half second of sound in which there is any."""
    kept = numpy.zeros((0, 2))
    while True:
        frame = await track.recv()
        block = frame.to_ndarray().reshape(-1, len(frame.layout.channels)) / 32768
        if block.shape[1] == 1:
            block = numpy.repeat(block, 2, axis=1)
        kept = numpy.concatenate([kept, block])
        if len(kept) < RATE // 2:
            continue
        peaks = [peak(kept[:, channel]) for channel in (0, 1)]
        kept = kept[:0]
        if max(level for _, level in peaks) > -60:
            (left_hz, left_db), (right_hz, right_db) = peaks
            say("heard", mid=mid, left_hz=left_hz, left_db=left_db, right_hz=right_hz, right_db=right_db)


def peak(samples):
    window = numpy.hanning(len(samples))
    spectrum = numpy.abs(numpy.fft.rfft(samples * window)) * 2 / window.sum()
    spectrum[0] = 0
    at = int(spectrum.argmax())
    return at * RATE / len(samples), 20 * math.log10(max(spectrum[at], 1e-7))


async def main(options):
    aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: [options.host]
    if options.profile:
        rtcdtlstransport.SRTP_PROFILES[:] = [PROFILES[options.profile]]
    async with connect(options.ws, subprotocols=["carillon.v1"], max_size=1 << 20) as socket:
        await session(options, socket)


async def session(options, socket):
    await socket.send(json.dumps({"type": "hello", "id": 1, "token": options.token}))
    welcome = await reply(socket, 1)
    say("welcome", peer=welcome["peer"])

    connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    uses = []
    if options.tone:
        uses.append((connection.addTransceiver(Tone(options.tone), direction="sendonly"), options.kind))
    for use, count in (("speech_slot", options.speech), ("program_slot", options.program)):
        uses += [(connection.addTransceiver("audio", direction="recvonly"), use) for _ in range(count)]

    @connection.on("connectionstatechange")
    def changed():
        if connection.connectionState != "connected":
            return say(connection.connectionState)
        transport = uses[0][0].sender.transport
        tls = transport._ssl
        say(
            "connected",
            profile=(tls.get_selected_srtp_profile() or b"").decode(),
            role=transport._role,
            dtls=tls.get_protocol_version_name(),
        )

    await connection.setLocalDescription(await connection.createOffer())
    sdp = connection.localDescription.sdp.replace("a=setup:actpass", f"a=setup:{options.setup}")
    media = [{"mid": line.mid, "use": use} for line, use in uses]
    await socket.send(json.dumps({"type": "offer", "id": 2, "sdp": sdp, "media": media}))
    answer = await reply(socket, 2)
    await connection.setRemoteDescription(RTCSessionDescription(answer["sdp"], "answer"))
    for line, use in uses:
        if use.endswith("slot"):
            asyncio.ensure_future(listen(line.mid, line.receiver.track))
    async for text in socket:
        say("message", message=json.loads(text))


async def reply(socket, request):
    """The answer to `request`; what else comes meanwhile is said too."""
    while True:
        message = json.loads(await socket.recv())
        if message.get("re") != request:
            say("message", message=message)
        elif message["type"] == "error":
            say("refused", message=message)
            sys.exit(1)
        else:
            return message


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--ws", required=True)
    parser.add_argument("--token", required=True)
    parser.add_argument("--tone", type=float, help="hertz; left out: only listens")
    parser.add_argument("--kind", default="mic", choices=["mic", "program"])
    parser.add_argument("--speech", type=int, default=8)
    parser.add_argument("--program", type=int, default=2)
    parser.add_argument("--setup", default="actpass", choices=["actpass", "active", "passive"])
    parser.add_argument("--profile", choices=list(PROFILES), help="the only SRTP profile offered")
    parser.add_argument("--host", default="127.0.0.1")
    asyncio.run(main(parser.parse_args()))
