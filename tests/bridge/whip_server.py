"""A WHIP endpoint (RFC 9725) of nobody's product: the standard library's HTTP and aiortc. POST /whip answers an offer, DELETE of
what it names ends the session; what arrives is decoded, and the loudest tone of each channel is said. One JSON object a
line. `--token` must be shown as Bearer; `--redirect` sends the first offer elsewhere on the same server; `--busy N` answers
the first N offers with 503; `--tls FOLDER` makes it an https server for `localhost`, whose authority's certificate is then in
FOLDER/authority.pem, and whose own is expired until the input says `renew`; `--plain-srtp` takes AES-CM with HMAC-SHA1 alone.
`forget` on the input closes every session."""

import argparse
import asyncio
import datetime
import json
import math
import pathlib
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import aioice.ice
import numpy
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription, rtcdtlstransport
from aiortc.mediastreams import MediaStreamError

RATE = 48000
# What RFC 9725 wants of an offer.
WANTED = ["a=sendonly", "a=group:BUNDLE ", "a=bundle-only", "a=rtcp-mux\r", "a=rtcp-mux-only", "a=msid:", "a=setup:actpass"]


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
        try:
            frame = await track.recv()
        except MediaStreamError:
            return
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
            say("asked")
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
            say("offer", lines=offer.count("\nm="), has=[line for line in WANTED if f"\r\n{line}" in offer], path=self.path)
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


class Authority:
    """Whom nobody trusts but who is told to."""

    def __init__(self, folder):
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Authority of a test")])
        is_authority = (x509.BasicConstraints(ca=True, path_length=None), True)
        root = self.sign(self.name, self.key, 2, *is_authority)
        (folder / "authority.pem").write_bytes(root.public_bytes(serialization.Encoding.PEM))

    def sign(self, subject, key, days, extension, critical):
        now = datetime.datetime.now(datetime.timezone.utc)
        builder = x509.CertificateBuilder(self.name, subject, key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - datetime.timedelta(days=9)).not_valid_after(now + datetime.timedelta(days=days))
        return builder.add_extension(extension, critical).sign(self.key, hashes.SHA256())

    def certificate(self, name, days):
        """The file of one with its key, for this name and so many days from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        own = self.sign(x509.Name([]), key, days, x509.SubjectAlternativeName([x509.DNSName(name)]), True)
        unprotected = serialization.NoEncryption()
        file = self.folder / "server.pem"
        file.write_bytes(
            own.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, unprotected)
        )
        return file


class Server(ThreadingHTTPServer):
    """Over TLS, when there is a certificate. Handshakes are the threads' business, for one that fails or stalls."""

    def __init__(self, endpoint):
        super().__init__(("127.0.0.1", 0), handler(endpoint))
        self.tls = None
        if endpoint.options.tls:
            self.authority = Authority(pathlib.Path(endpoint.options.tls))
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.tls.load_cert_chain(self.authority.certificate("localhost", days=-1))

    def renew(self):
        self.tls.load_cert_chain(self.authority.certificate("localhost", days=1))

    def get_request(self):
        stream, address = super().get_request()
        if self.tls:
            stream = self.tls.wrap_socket(stream, server_side=True, do_handshake_on_connect=False)
        return stream, address

    def handle_error(self, request, client_address):
        say("broken", error=str(sys.exc_info()[1]))


def obey(endpoint, server):
    for line in sys.stdin:
        if line.strip() == "renew":
            server.renew()
        else:
            # As a server does that starts anew.
            for connection in endpoint.sessions.values():
                endpoint.run(connection.close())
            say("forgotten")


async def main(options):
    aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"]
    if options.plain_srtp:
        rtcdtlstransport.SRTP_PROFILES[:] = [rtcdtlstransport.SRTP_AES128_CM_SHA1_80]
    endpoint = Endpoint(options, asyncio.get_running_loop())
    server = Server(endpoint)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    threading.Thread(target=obey, args=(endpoint, server), daemon=True).start()
    origin = f"https://localhost:{server.server_port}" if options.tls else f"http://127.0.0.1:{server.server_port}"
    say("listens", url=f"{origin}/whip")
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--token", required=True)
    parser.add_argument("--redirect", action="store_true")
    parser.add_argument("--busy", type=int, default=0)
    parser.add_argument("--tls")
    parser.add_argument("--plain-srtp", action="store_true")
    asyncio.run(main(parser.parse_args()))
