// Media for the page under dev/mock.mjs: answers each offer with a second peer connection in the same page that sends a
// different, speech-like pulsing tone into each of the first slots. Development only; never part of a build.
(() => {
  const Real = window.WebSocket;
  const TONES_HZ = [220, 277, 330, 392, 440, 523, 587, 659];

  class TappedSocket extends Real {
    send(text) {
      const message = JSON.parse(text);
      if (message.type !== "offer") return super.send(text);
      answer(message).then((sdp) => super.send(JSON.stringify({ ...message, dev_answer: sdp })));
    }
  }
  window.WebSocket = TappedSocket;

  let peer = null;

  async function answer({ sdp, media }) {
    peer?.close();
    peer = new RTCPeerConnection({ bundlePolicy: "max-bundle" });
    window.__loopback = peer;
    await peer.setRemoteDescription({ type: "offer", sdp });
    const context = new AudioContext();
    const slots = media.filter(({ use }) => use.endsWith("_slot"));
    for (const [index, { mid, use }] of slots.entries()) {
      const transceiver = peer.getTransceivers().find((candidate) => candidate.mid === mid);
      transceiver.direction = "sendonly";
      const program = use === "program_slot";
      if ((program && index === slots.length - 2) || index < 2) {
        await transceiver.sender.replaceTrack(tone(context, TONES_HZ[index % TONES_HZ.length], program ? 0.9 : 2.3 - index));
      }
    }
    await peer.setLocalDescription(await peer.createAnswer());
    await new Promise((resolve) => {
      const done = () => peer.iceGatheringState === "complete" && resolve();
      peer.addEventListener("icegatheringstatechange", done);
      done();
      setTimeout(resolve, 2000);
    });
    return peer.localDescription.sdp;
  }

  function tone(context, hz, pulseHz) {
    const oscillator = new OscillatorNode(context, { frequency: hz });
    const pulse = new OscillatorNode(context, { frequency: pulseHz });
    const depth = new GainNode(context, { gain: 0.1 });
    const gain = new GainNode(context, { gain: 0.1 });
    const sink = new MediaStreamAudioDestinationNode(context);
    pulse.connect(depth).connect(gain.gain);
    oscillator.connect(gain).connect(sink);
    oscillator.start();
    pulse.start();
    return sink.stream.getAudioTracks()[0];
  }
})();
