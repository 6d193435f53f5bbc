"""A WHIP endpoint (RFC 9725) of nobody's product: the standard library's HTTP and aiortc. POST /whip answers an offer, DELETE of
what it names ends the session; what arrives is decoded, and the loudest tone of each channel is said. One JSON object a
line. `--token` must be shown as Bearer; `--redirect` sends the first offer elsewhere on the same server; `--busy N` answers
the first N offers with 503."""

import argparse
import asyncio
import json
import math
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import aioice.ice
import numpy
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

RATE = 48000


def say(event, **fields):
    print(json.dumps({"event": event, **fields}), flush=True)


class Endpoint:
    """The sessions, on the loop of the media."""

    def __init__(self, options, loop):
        self.options = options
        self.loop = loop
        self.sessions = {}
        self.offers = 0

    async def answer(self, sdp):
        connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))

        @connection.on("track")
        def arrived(track):
            asyncio.ensure_future(listen(track))

        @connection.on("connectionstatechange")
        def changed():
            say("media", state=connection.connectionState)

        await connection.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
        await connection.setLocalDescription(await connection.createAnswer())
        name = f"/session/{len(self.sessions) + 1}"
        self.sessions[name] = connection
        return name, connection.localDescription.sdp

    def run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(20)


async def listen(track):
    kept = numpy.zeros((0, 2))
    while True:
        frame = await track.recv()
        block = frame.to_ndarray().reshape(-1, len(frame.layout.channels)) / 32768
        kept = numpy.concatenate([kept, block if block.shape[1] == 2 else numpy.repeat(block, 2, axis=1)])
        if len(kept) >= RATE // 2:
            (left_hz, left_db), (right_hz, right_db) = [peak(kept[:, channel]) for channel in (0, 1)]
            kept = kept[:0]
            if max(left_db, right_db) > -60:
                say("heard", left_hz=left_hz, left_db=left_db, right_hz=right_hz, right_db=right_db)


def peak(samples):
    window = numpy.hanning(len(samples))
    spectrum = numpy.abs(numpy.fft.rfft(samples * window)) * 2 / window.sum()
    spectrum[0] = 0
    at = int(spectrum.argmax())
    return at * RATE / len(samples), 20 * math.log10(max(spectrum[at], 1e-7))


def handler(endpoint):
    options = endpoint.options

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def respond(self, status, headers=(), body=""):
            self.send_response(status)
            for name, value in headers:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body.encode())))
            self.end_headers()
            self.wfile.write(body.encode())

        def admitted(self):
            if self.headers.get("Authorization") == f"Bearer {options.token}":
                return True
            say("refused", method=self.command)
            self.respond(401, [("WWW-Authenticate", "Bearer")], "who are you?")
            return False

        def do_OPTIONS(self):
            self.respond(204, [("Accept-Post", "application/sdp"), ("Link", '<stun:127.0.0.1:9>; rel="ice-server"')])

        def do_POST(self):
            offer = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            if not self.admitted():
                return None
            endpoint.offers += 1
            if endpoint.offers <= options.busy:
                say("busy")
                return self.respond(503, [("Retry-After", "1")])
            if options.redirect and self.path == "/whip":
                say("redirected")
                return self.respond(307, [("Location", "/elsewhere/whip")])
            if self.headers.get("Content-Type") != "application/sdp":
                return self.respond(415)
            name, answer = endpoint.run(endpoint.answer(offer))
            say("offer", lines=offer.count("\nm="), sends="a=sendonly" in offer, path=self.path)
            return self.respond(
                201, [("Content-Type", "application/sdp"), ("Location", name), ("ETag", '"1"')], answer
            )

        def do_DELETE(self):
            if not self.admitted():
                return None
            connection = endpoint.sessions.get(self.path)
            if connection is None:
                return self.respond(404)
            endpoint.run(connection.close())
            say("deleted", path=self.path)
            return self.respond(200)

        def log_message(self, *_):
            pass

    return Handler


def forget(endpoint):
    """Each line of the input closes every session, as a server does that starts anew."""
    for _ in sys.stdin:
        for connection in endpoint.sessions.values():
            endpoint.run(connection.close())
        say("forgotten")


async def main(options):
    aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"]
    endpoint = Endpoint(options, asyncio.get_running_loop())
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(endpoint))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    threading.Thread(target=forget, args=(endpoint,), daemon=True).start()
    say("listens", url=f"http://127.0.0.1:{server.server_port}/whip")
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--token", required=True)
    parser.add_argument("--redirect", action="store_true")
    parser.add_argument("--busy", type=int, default=0)
    asyncio.run(main(parser.parse_args()))
